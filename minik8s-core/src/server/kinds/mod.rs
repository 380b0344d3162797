//! The built-in kinds: one file each, and one line in [`builtin`]. Nothing else in the server names them.

mod cells;
mod config_map;
mod namespace;
mod util;

use super::Kind;
use std::sync::Arc;

/// Every built-in kind.
pub(crate) fn builtin() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(config_map::ConfigMapKind::new()), Arc::new(namespace::NamespaceKind::new())]
}
