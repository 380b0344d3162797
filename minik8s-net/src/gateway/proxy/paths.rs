//! Paths as they are matched. What means the same must not be told apart by how it is spelled: a rule about `/admin` is one
//! about `//admin` and `/%61dmin` too (RFC 3986, section 6.2.2). What is passed on stays as it came.

use std::borrow::Cow;

/// With letters that need no percent sign as themselves, and one slash where there are several.
pub(super) fn normal(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("//") {
        return path.into();
    }
    let (bytes, mut out, mut at) = (path.as_bytes(), Vec::with_capacity(path.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let coded = (*byte == b'%').then(|| unreserved(bytes.get(at + 1..at + 3)?)).flatten();
        let byte = coded.unwrap_or(*byte);
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
        at += if coded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).map_or(path.into(), Cow::from)
}

/// The letter of two hexadecimal digits, where it needs no percent sign.
fn unreserved(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let byte = u8::from_str_radix(text, 16).ok()?;
    (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)).then_some(byte)
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
            ("/a%20b%", "/a%20b%"),
            ("/%6", "/%6"),
            ("/%+1", "/%+1"),
            ("/%C3%A4", "/%C3%A4"),
        ] {
            assert_eq!(normal(path), want, "{path}");
        }
    }
}
