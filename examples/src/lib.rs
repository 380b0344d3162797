//! Small programs that show one thing each; `cargo run -p minik8s-examples --bin embed`. All of them run in CI.
