//! The API servers of one cluster: where a client goes when the one it knows does not answer.

use tokio::sync::watch;

/// Addresses of API servers, `https://10.0.0.1:6443`. May be replaced while connections use them: the next connection
/// tries the new ones. Clones share them.
///
/// ```
/// use minik8s_core::client::Servers;
///
/// let servers = Servers::new(["https://10.0.0.1:6443"]);
/// let shared = servers.clone();
/// shared.replace(["https://10.0.0.2:6443", "https://10.0.0.3:6443"]);
/// assert_eq!(servers.all().len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct Servers(watch::Sender<Vec<String>>);

impl Default for Servers {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Servers {
    /// These addresses.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let servers = Self::default();
        servers.replace(urls);
        servers
    }

    /// The addresses.
    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// From now on these. True where that is a change.
    pub fn replace(&self, urls: impl IntoIterator<Item = impl Into<String>>) -> bool {
        let urls: Vec<String> = urls.into_iter().map(Into::into).collect();
        self.0.send_if_modified(|known| {
            let changed = *known != urls;
            *known = urls;
            changed
        })
    }

    /// Tells of changes.
    pub(crate) fn follow(&self) -> watch::Receiver<Vec<String>> {
        self.0.subscribe()
    }
}
