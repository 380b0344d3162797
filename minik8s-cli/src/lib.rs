//! The minik8s command: a whole cluster in one process, and its command line.
