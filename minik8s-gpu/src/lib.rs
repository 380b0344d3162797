//! Batch and GPU jobs for minik8s.
