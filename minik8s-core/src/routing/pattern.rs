//! Expressions in routes: bounded, and about the whole of a text.

/// Most that an expression may take when compiled, and how deep it may be nested.
const REGEX_SIZE: usize = 256 * 1024;
const REGEX_DEPTH: u32 = 50;

/// An expression that must match the whole of a text; refused where it does not compile, or not within bounds.
///
/// # Errors
/// Why not, as a sentence.
pub fn whole_regex(pattern: &str) -> Result<regex::Regex, String> {
    let compile = |text: &str| {
        let mut builder = regex::RegexBuilder::new(text);
        builder.size_limit(REGEX_SIZE).nest_limit(REGEX_DEPTH).build().map_err(|error| error.to_string())
    };
    // What is an expression only between parentheses that it did not open would get out of the anchors.
    compile(pattern)?;
    compile(&anchored(pattern))
}

/// Expressions of which each must match the whole of a text. All were compiled alone before.
pub fn whole_regexes<'a>(patterns: impl ExactSizeIterator<Item = &'a str>) -> Option<regex::RegexSet> {
    let limit = REGEX_SIZE * patterns.len().max(1);
    regex::RegexSetBuilder::new(patterns.map(anchored)).size_limit(limit).build().ok()
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// What is wrong with an expression.
pub(crate) fn regex_complaint(pattern: &str) -> Option<String> {
    whole_regex(pattern).err().map(|why| format!("must be a regular expression: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_the_whole_and_do_not_get_out_of_that() {
        let regex = whole_regex("/a|/b+").unwrap();
        assert!(regex.is_match("/bb") && !regex.is_match("/a/x") && !regex.is_match("x/bb"));
        for pattern in ["a)|(?:b", "(?x)a#", "(", "(a{999}){999}"] {
            assert!(whole_regex(pattern).is_err(), "{pattern}");
        }
    }
}
