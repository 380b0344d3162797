//! The string rules every name, label and annotation obeys, with the sentences clients know them by.

/// The namespace of the nodes' leases.
pub const NODE_LEASES: &str = "kube-node-lease";

/// Reason of a pod's condition `Ready` after its node was not heard of for too long.
pub const NODE_NOT_READY: &str = "NodeNotReady";

/// Longest label value, name part of a key, and DNS label.
const LABEL: usize = 63;
/// Longest DNS subdomain.
const SUBDOMAIN: usize = 253;

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DNS_1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
    or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const ENV_VAR: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
    or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// What is wrong with a text, as the sentences of an error; nothing where it is fine.
pub type Complaints = Vec<String>;

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253 characters.
    Subdomain,
    /// RFC 1123 label, 63 characters.
    Label,
    /// RFC 1035 label: as above, and the first character is a letter.
    ServiceLabel,
    /// Anything that can stand in a URL path (RBAC).
    PathSegment,
}

impl NameRule {
    /// What is wrong with a name.
    pub fn check(self, name: &str) -> Complaints {
        match self {
            NameRule::Subdomain => dns_subdomain(name),
            NameRule::Label => dns_label(name),
            NameRule::ServiceLabel => dns_1035_label(name),
            NameRule::PathSegment => path_segment(name),
        }
    }

    /// What is wrong with a `generateName`, to which more is appended: it may end in a dash.
    pub fn check_prefix(self, prefix: &str) -> Complaints {
        match prefix.strip_suffix('-') {
            Some(_) if self != NameRule::PathSegment && prefix.len() > 1 => {
                self.check(&format!("{}a", &prefix[..prefix.len() - 1]))
            }
            _ => self.check(prefix),
        }
    }
}

/// A name that can stand in a URL path.
pub fn path_segment(text: &str) -> Complaints {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let found = ["/", "%"].into_iter().filter(|c| text.contains(c));
    found.map(|c| format!("may not contain '{c}'")).collect()
}

/// First and last byte satisfy `edge`, every byte satisfies `edge` or is one of `inner`; not empty.
fn shaped(text: &str, edge: fn(&u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge);
    edges && bytes.iter().all(|b| edge(b) || inner.contains(b))
}

fn lower(b: &u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn rule(text: &str, max: usize, ok: bool, sentence: &str) -> Complaints {
    let mut out = Complaints::new();
    if text.len() > max {
        out.push(too_long(max));
    }
    if !ok {
        out.push(sentence.to_owned());
    }
    out
}

/// RFC 1123 label: namespaces, containers, ports' hosts.
pub fn dns_label(text: &str) -> Complaints {
    rule(text, LABEL, shaped(text, lower, b"-"), DNS_1123_LABEL)
}

/// RFC 1035 label: services.
pub fn dns_1035_label(text: &str) -> Complaints {
    let ok = shaped(text, lower, b"-") && text.as_bytes()[0].is_ascii_lowercase();
    rule(text, LABEL, ok, DNS_1035_LABEL)
}

/// RFC 1123 subdomain: most objects.
pub fn dns_subdomain(text: &str) -> Complaints {
    let ok = text.split('.').all(|part| shaped(part, lower, b"-"));
    rule(text, SUBDOMAIN, ok, DNS_1123_SUBDOMAIN)
}

/// Key of a label, an annotation or a finalizer: `name` or `domain/name`.
pub fn qualified_name(text: &str) -> Complaints {
    let parts: Vec<&str> = text.split('/').collect();
    let (prefix, name) = match parts[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut out = Complaints::new();
    match prefix {
        Some("") => out.push("prefix part must be non-empty".into()),
        Some(prefix) => out.extend(dns_subdomain(prefix).into_iter().map(|s| format!("prefix part {s}"))),
        None => {}
    }
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > LABEL {
        out.push(format!("name part {}", too_long(LABEL)));
    }
    if !shaped(name, u8::is_ascii_alphanumeric, b"-_.") {
        out.push(format!("name part {QUALIFIED}"));
    }
    out
}

/// Value of a label.
pub fn label_value(text: &str) -> Complaints {
    let ok = text.is_empty() || shaped(text, u8::is_ascii_alphanumeric, b"-_.");
    rule(text, LABEL, ok, LABEL_VALUE)
}

/// Name of an environment variable.
pub fn env_var(text: &str) -> Complaints {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    let ok = text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    if ok { Complaints::new() } else { vec![ENV_VAR.into()] }
}

/// Key of a `ConfigMap` or a `Secret`, which may become a file's name.
pub fn config_key(text: &str) -> Complaints {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let mut out = rule(text, SUBDOMAIN, !text.is_empty() && text.bytes().all(plain), CONFIG_KEY);
    if text == "." || text == ".." {
        out.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        out.push("must not start with '..'".into());
    }
    out
}

/// Name of a port: an IANA service name.
pub fn port_name(text: &str) -> Complaints {
    let mut out = Complaints::new();
    if text.len() > 15 {
        out.push("must be no more than 15 characters".into());
    }
    if !text.bytes().all(|b| lower(&b) || b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_keep_to_their_alphabet_and_length() {
        for ok in ["a", "web-1", "0", "a-b"] {
            assert!(dns_label(ok).is_empty(), "{ok}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!dns_label(bad).is_empty(), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.d").is_empty());
        for bad in ["", ".a", "a.", "a..b", "a.-b", &"a".repeat(254)] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(dns_1035_label("web-1").is_empty());
        assert!(!dns_1035_label("1web").is_empty());
        assert!(!dns_1035_label("").is_empty());
    }

    #[test]
    fn qualified_names_have_at_most_one_prefix() {
        for ok in ["app", "A_b.c-d", "example.com/app", "kubernetes.io/metadata.name"] {
            assert!(qualified_name(ok).is_empty(), "{ok}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "UP/a", "a b"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
    }

    #[test]
    fn values_and_keys() {
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert!(env_var("MY.VAR-1").is_empty());
        assert!(!env_var("a=b").is_empty());
        assert!(config_key("a_B.c-1").is_empty());
        assert!(!config_key("a/b").is_empty());
        assert!(!config_key("..").is_empty());
        assert!(port_name("http-1").is_empty());
        assert!(!port_name("12").is_empty());
        assert!(!port_name("a--b").is_empty());
    }
}
