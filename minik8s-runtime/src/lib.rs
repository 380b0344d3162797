//! Container runtimes for minik8s: containerd, images, log files.
