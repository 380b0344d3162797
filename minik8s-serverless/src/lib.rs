//! Functions and workflows for minik8s.
