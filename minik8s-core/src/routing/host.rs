//! Hosts that rules are about.

/// Hosts that a rule is about. Always in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// All.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// Those that end so.
    Below {
        /// `.example.com`
        suffix: String,
        /// Only one label stands before it, as Ingress has it.
        one_label: bool,
    },
}

impl Host {
    /// What a kind says: nothing for all, `*.example.com`, or a name.
    pub fn parse(text: &str, one_label: bool) -> Self {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) => Host::Below { suffix: suffix.to_owned(), one_label },
            None if text.is_empty() => Host::Any,
            None => Host::Exact(text),
        }
    }

    /// True where the rule is about this host, which is in lower case.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Exact(name) => name == host,
            Host::Below { suffix, one_label } => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| !(rest.is_empty() || *one_label && rest.contains('.'))),
        }
    }

    /// The hosts that both are about.
    pub fn and(&self, other: &Host) -> Option<Host> {
        match (self, other) {
            (Host::Any, host) | (host, Host::Any) => Some(host.clone()),
            (Host::Exact(name), pattern) | (pattern, Host::Exact(name)) => {
                pattern.matches(name).then(|| Host::Exact(name.clone()))
            }
            (Host::Below { suffix: a, .. }, Host::Below { suffix: b, .. }) => {
                let longer = if a.len() >= b.len() { (self, a, b) } else { (other, b, a) };
                longer.1.ends_with(longer.2.as_str()).then(|| longer.0.clone())
            }
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Exact(name) => f.write_str(name),
            Host::Below { suffix, .. } => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_intersect_as_the_gateway_api_says() {
        let host = |text: &str| Host::parse(text, false);
        let table = [
            ("", "a.com", Some("a.com")),
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("*.example.com", "test.example.com", Some("test.example.com")),
            ("*.example.com", "foo.test.example.com", Some("foo.test.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.foo.example.com", Some("*.foo.example.com")),
            ("*.example.com", "*.example.net", None),
            ("", "", Some("*")),
        ];
        for (a, b, both) in table {
            let found = host(a).and(&host(b)).map(|h| h.to_string());
            assert_eq!(found.as_deref(), both, "{a} and {b}");
            assert_eq!(host(b).and(&host(a)).map(|h| h.to_string()).as_deref(), both, "{b} and {a}");
        }
    }

    #[test]
    fn ingress_wildcards_cover_one_label() {
        // The table of the Ingress documentation.
        let ingress = Host::parse("*.foo.com", true);
        assert!(ingress.matches("bar.foo.com"));
        assert!(!ingress.matches("baz.bar.foo.com") && !ingress.matches("foo.com"));
        assert!(Host::parse("*.foo.com", false).matches("baz.bar.foo.com"));
        assert_eq!(Host::parse("Shop.Example.COM.", true), Host::Exact("shop.example.com".into()));
    }
}
