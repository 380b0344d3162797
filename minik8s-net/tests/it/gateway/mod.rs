//! The gateway on real sockets, with real clients before it and real servers behind it.

mod abuse;
mod content;
mod ends;
mod failures;
mod held;
mod protocols;
mod world;
