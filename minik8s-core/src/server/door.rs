//! Paths of the API server that an extension serves itself, such as a registry of images.

use super::auth::User;
use super::rest::Body;
use async_trait::async_trait;
use http::{Request, Response};

/// An HTTP service below a path of the API server's listeners. It decides by itself what a user may do; a request
/// without a user is one that nobody identified.
#[async_trait]
pub trait HttpDoor: Send + Sync + 'static {
    /// The path below which it is asked, with a slash at its end: `/v2/`. None that the API itself has.
    fn prefix(&self) -> &str;

    /// Answers a request. Bodies are streams, whose size it limits itself.
    async fn call(&self, user: Option<User>, request: Request<Body>) -> Response<Body>;
}
