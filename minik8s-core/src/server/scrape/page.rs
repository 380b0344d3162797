//! Pages of metrics in the text format of Prometheus: read, and given more labels. Pure.

use std::fmt::Write as _;

/// One line: a name, labels, a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: Vec<(&'a str, String)>,
    pub(crate) value: f64,
}

/// The samples of a page; lines that are none are left out.
pub(crate) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let (name, rest) = name_of(line)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        None => (Vec::new(), rest),
        Some(inside) => labels(inside)?,
    };
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name, labels, value })
}

fn name_of(line: &str) -> Option<(&str, &str)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    (!name.is_empty() && (rest.starts_with('{') || rest.starts_with([' ', '\t']))).then_some((name, rest))
}

/// Labels and their texts.
type Labels<'a> = Vec<(&'a str, String)>;

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        found.push((name.trim(), value));
        rest = after;
    }
}

/// A quoted text up to its end, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut out, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (true, 'n') => out.push('\n'),
            (true, other) => out.push(other),
            (false, '"') => return Some((out, &text[at + 1..])),
            (false, '\\') => {}
            (false, other) => out.push(other),
        }
        escaped = !escaped && c == '\\';
    }
    None
}

/// Adds a page to another one, its samples with these labels before their own; an own label of the same name is
/// `exported_` from then on, as Prometheus does it. Comments are left out: the same name may come from several pages, and
/// may be described once only.
pub(crate) fn append(out: &mut String, page: &str, more: &[(&str, &str)]) {
    for line in page.lines() {
        let Some((name, rest)) = name_of(line) else { continue };
        let (own, rest) = match rest.strip_prefix('{') {
            None => (Vec::new(), rest),
            Some(inside) => match labels(inside) {
                Some(read) => read,
                None => continue,
            },
        };
        let taken = |name: &str| more.iter().any(|(added, _)| *added == name);
        let own = own.into_iter().map(|(name, value)| {
            let prefix = if taken(name) { "exported_" } else { "" };
            format!("{prefix}{name}=\"{}\"", escape(&value))
        });
        let added = more.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
        let all = added.chain(own).collect::<Vec<_>>().join(",");
        let _ = if all.is_empty() { writeln!(out, "{name}{rest}") } else { writeln!(out, "{name}{{{all}}}{rest}") };
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP hits How many.\n# TYPE hits counter\nhits{path=\"/a\\\"b\",code=\"200\"} 3 1700000\nhits{} 4\n\
        temperature -1.5e1\nbroken{a=\"b} 1\nnone\ninfinite +Inf\n# EOF\n";

    #[test]
    fn samples_are_read_and_what_is_none_is_left_out() {
        let found: Vec<_> = samples(PAGE).map(|s| (s.name, s.labels, s.value)).collect();
        let labels = vec![("path", "/a\"b".to_owned()), ("code", "200".to_owned())];
        let want = [
            ("hits", labels, 3.0),
            ("hits", vec![], 4.0),
            ("temperature", vec![], -15.0),
            ("infinite", vec![], f64::INFINITY),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn pages_are_joined_under_more_labels() {
        let mut out = String::new();
        append(&mut out, PAGE, &[("pod", "a\"b"), ("code", "x")]);
        let want = "hits{pod=\"a\\\"b\",code=\"x\",path=\"/a\\\"b\",exported_code=\"200\"} 3 1700000\n\
            hits{pod=\"a\\\"b\",code=\"x\"} 4\ntemperature{pod=\"a\\\"b\",code=\"x\"} -1.5e1\n\
            infinite{pod=\"a\\\"b\",code=\"x\"} +Inf\n";
        assert_eq!(out, want);
        assert_eq!(samples(&out).count(), 4);
        let mut plain = String::new();
        append(&mut plain, "a 1\n", &[]);
        assert_eq!(plain, "a 1\n");
    }
}
