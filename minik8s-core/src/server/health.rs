//! Health checks: named questions that `/livez` and `/readyz` ask.

use parking_lot::RwLock;
use std::fmt::Write as _;
use std::sync::Arc;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of one server. Cheap to clone; clones share the checks.
#[derive(Clone, Default)]
pub struct Health(Arc<RwLock<Vec<(String, Check)>>>);

impl Health {
    /// Adds a check, which must answer at once; its error says what is wrong.
    pub fn add(&self, name: impl Into<String>, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.write().push((name.into(), Arc::new(check)));
    }

    /// Asks every check, or the named one; says whether all is well, and the report as `?verbose` shows it.
    /// `None` where there is no check of that name.
    pub(crate) fn report(&self, endpoint: &str, only: Option<&str>) -> Option<(bool, String)> {
        let mut checks: Vec<(String, Check)> = vec![("ping".to_owned(), Arc::new(|| Ok(())))];
        checks.extend(self.0.read().iter().cloned());
        checks.retain(|(name, _)| only.is_none_or(|only| only == name));
        if checks.is_empty() {
            return None;
        }
        let (mut well, mut text) = (true, String::new());
        for (name, check) in checks {
            let result = check();
            well &= result.is_ok();
            let _ = match result {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(why) => writeln!(text, "[-]{name} failed: {why}"),
            };
        }
        let _ = writeln!(text, "{endpoint} check {}", if well { "passed" } else { "failed" });
        Some((well, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failing_check_fails_the_whole() {
        let health = Health::default();
        health.add("store", || Ok(()));
        assert_eq!(
            health.report("readyz", None).unwrap(),
            (true, "[+]ping ok\n[+]store ok\nreadyz check passed\n".into())
        );
        health.add("cache", || Err("not synced".into()));
        let (well, text) = health.report("readyz", None).unwrap();
        assert!(!well && text.contains("[-]cache failed: not synced"), "{text}");
        assert!(health.report("readyz", Some("store")).unwrap().0);
        assert!(health.report("readyz", Some("nothing")).is_none());
    }
}
