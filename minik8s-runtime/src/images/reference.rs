//! Image names, as people write them and as they are kept.

use minik8s_core::runtime::RuntimeError;
use std::fmt;

/// A normalised image name: `registry/repository`, with a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// Host, with port where one is given.
    pub registry: String,
    /// Path below the registry.
    pub repository: String,
    /// Tag, where no digest pins the image.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

impl ImageName {
    /// `registry/repository`
    pub fn repo(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(f, "@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// Reads an image name and fills in what is left out: `nginx` is `docker.io/library/nginx:latest`.
///
/// # Errors
/// `InvalidImageName`, saying what is wrong.
pub fn normalize(name: &str) -> Result<ImageName, RuntimeError> {
    let wrong = |cause: &str| RuntimeError::InvalidImageName { name: name.to_owned(), cause: cause.to_owned() };
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err(wrong("the digest is not sha256: and 64 hexadecimal digits"));
    }
    let (registry, path) = split_registry(rest);
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err(wrong("the tag may hold letters, digits, '_', '.', '-', and at most 128 of them"));
    }
    if repository.is_empty() || !repository.split('/').all(is_component) {
        return Err(wrong("the repository must be lower-case letters and digits, separated by '/', '.', '_' or '-'"));
    }
    if registry.is_some_and(|r| !is_host(r)) {
        return Err(wrong("the registry is not a host name with an optional port"));
    }
    let official = registry.is_none_or(|r| r == "docker.io" || r == "index.docker.io");
    let repository =
        if official && !repository.contains('/') { format!("library/{repository}") } else { repository.to_owned() };
    let registry = if official { "docker.io" } else { registry.unwrap_or("docker.io") }.to_owned();
    let tag = match (tag, digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    };
    Ok(ImageName { registry, repository, tag, digest: digest.map(str::to_owned) })
}

/// The first component is a registry where it looks like a host: a dot, a port, or `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
        _ => (None, name),
    }
}

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_tag(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(ok) && !text.starts_with(['.', '-'])
}

fn is_component(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let ok = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    bytes.iter().all(ok) && edge(bytes.first()) && edge(bytes.last())
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    !host.is_empty() && host.bytes().all(ok) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned = format!("ghcr.io/a/b@{digest}");
        let both = format!("nginx:1.25@{digest}");
        let official = format!("docker.io/library/nginx@{digest}");
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:V1.0_x", "localhost:5000/a/b:V1.0_x"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            (&pinned, &pinned),
            (&both, &official),
        ] {
            assert_eq!(normalize(given).expect(given).to_string(), full);
        }
    }

    #[test]
    fn broken_names_say_why() {
        for (name, why) in [
            ("", "repository"),
            ("UPPER", "repository"),
            ("a//b", "repository"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a@sha256:12", "digest"),
            ("host.x:99999/a", "registry"),
            ("-a", "repository"),
        ] {
            let error = normalize(name).expect_err(name).to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }
}
