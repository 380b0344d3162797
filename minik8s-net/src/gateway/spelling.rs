//! Paths as they are matched. What means the same must not be told apart by how it is spelled: a rule about `/admin` is one
//! about `//admin` and `/%61dmin` too, and `%2f` is `%2F` (RFC 3986, section 6.2.2). What is passed on stays as it came.

use minik8s_core::routing::PathRule;
use std::borrow::Cow;

/// With letters that need no percent sign as themselves, capital digits behind those that do, and one slash where there are
/// several.
pub(super) fn normal_path(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("//") {
        return path.into();
    }
    let (mut rest, mut out) = (path.as_bytes(), Vec::with_capacity(path.len()));
    while let [byte, after @ ..] = rest {
        let coded = if *byte == b'%' { coded(after) } else { None };
        match coded {
            Some(letter) if is_unreserved(letter) => out.push(letter),
            Some(_) => out.extend(rest.iter().take(3).map(u8::to_ascii_uppercase)),
            None if *byte == b'/' && out.last() == Some(&b'/') => {}
            None => out.push(*byte),
        }
        rest = if coded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(out).map_or(path.into(), Cow::from)
}

/// The same of what a rule asks for. Expressions say themselves what they mean.
pub(super) fn normal_rule(rule: &PathRule) -> PathRule {
    match rule {
        PathRule::Exact(path) => PathRule::Exact(normal_path(path).into_owned()),
        PathRule::Prefix(path) => PathRule::Prefix(normal_path(path).into_owned()),
        PathRule::Regex(_) => rule.clone(),
    }
}

/// What two hexadecimal digits stand for.
fn coded(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_spelled_the_same() {
        for (path, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("//admin", "/admin"),
            ("/a///b//", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/%7Euser/%2Dx", "/~user/-x"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb%c3%A4", "/a%2Fb%C3%A4"),
            ("/a%20b%", "/a%20b%"),
            ("/%6", "/%6"),
            ("/%+1", "/%+1"),
            ("/%", "/%"),
            ("/ä//b", "/ä/b"),
        ] {
            assert_eq!(normal_path(path), want, "{path}");
            assert_eq!(normal_path(want), want, "{want} once more");
        }
        let rule = normal_rule(&PathRule::Prefix("/a//%7Eb".into()));
        assert_eq!(rule, PathRule::Prefix("/a/~b".into()));
    }
}
