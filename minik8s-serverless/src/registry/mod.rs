//! A registry inside the control plane: images of functions, and what they are laid on. It speaks the OCI distribution
//! API below `/v2/` of the API server, so that nodes pull from it as from any other.
//!
//! What is asked for by its digest is told to everyone: who knows the digest was told of it, or has the content. All else
//! needs a user who may write functions; but who was given a word may send the one file that it stands for.
//!
//! Each API server has a directory; together they are one registry. What one lacks it takes from another, by digest, so that
//! nobody has to be trusted; names are objects of the cluster; the file of a word is passed on to who gave the word.

mod collect;
mod elsewhere;
mod error;
mod http;
pub mod image;
mod invited;
mod names;
mod store;
mod uploads;

pub use error::RegistryError;
pub use http::RegistryDoor;
pub(crate) use names::{LABEL as NAMES_LABEL, named};
pub use store::Registry;
pub(crate) use store::digest;

/// The host in names of images that are here, wherever the API server is.
pub const HOST: &str = "minik8s.internal";

/// Where the file of a word is sent to.
pub(crate) fn place_of_word(word: &str) -> String {
    format!("/v2/_invited/{word}")
}
