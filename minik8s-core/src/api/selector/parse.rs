//! The grammar of label selectors: `requirement ("," requirement)*`, where a requirement is `key`, `!key`, or a key, an
//! operator and a value or a list of values in parentheses.

use super::label::{LabelOp, Requirement};
use crate::api::{ApiError, ApiResult};
use std::collections::BTreeSet;

const SPECIAL: &[u8] = b"=!(),><";
const SYMBOLS: &[&str] = &["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// A token and whether it is a symbol (an identifier otherwise, keywords included).
#[derive(Clone, Copy, PartialEq)]
struct Token<'a> {
    text: &'a str,
    symbol: bool,
}

const END: Token<'static> = Token { text: "", symbol: true };

impl Token<'_> {
    fn is(&self, symbol: &str) -> bool {
        self.symbol && self.text == symbol
    }
}

struct Parser<'a> {
    rest: &'a str,
}

/// Parses a whole selector.
pub(super) fn requirements(text: &str) -> ApiResult<Vec<Requirement>> {
    let mut parser = Parser { rest: text };
    let mut out = Vec::new();
    loop {
        let next = parser.peek();
        if next == END {
            return Ok(out);
        }
        if next.symbol && !next.is("!") {
            return Err(found(next, "!, identifier, or 'end of string'"));
        }
        let requirement = parser.requirement();
        out.push(requirement.map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?);
        let separator = parser.next();
        if separator == END {
            return Ok(out);
        }
        if !separator.is(",") {
            return Err(found(separator, "',' or 'end of string'"));
        }
        let after = parser.peek();
        if after.symbol && !after.is("!") {
            return Err(found(after, "identifier after ','"));
        }
    }
}

fn found(token: Token<'_>, expected: &str) -> ApiError {
    ApiError::bad_request(format!("found '{}', expected: {expected}", token.text))
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let symbol = SYMBOLS.iter().find(|s| self.rest.starts_with(**s));
        let is_word = |b: &u8| !SPECIAL.contains(b) && !b" \t\r\n".contains(b);
        let length = symbol.map_or_else(|| self.rest.bytes().take_while(is_word).count(), |s| s.len());
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Token { text, symbol: symbol.is_some() || text.is_empty() }
    }

    fn peek(&self) -> Token<'a> {
        Parser { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> ApiResult<Requirement> {
        let mut token = self.next();
        let negated = token.is("!");
        if negated {
            token = self.next();
        }
        if token.symbol {
            return Err(found(token, "identifier"));
        }
        let key = token.text;
        let after = self.peek();
        if negated {
            return Requirement::new(key, LabelOp::DoesNotExist, []);
        }
        if after == END || after.is(",") {
            return Requirement::new(key, LabelOp::Exists, []);
        }
        let op = self.operator()?;
        let values = match op {
            LabelOp::In | LabelOp::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        Requirement::new(key, op, values)
    }

    fn operator(&mut self) -> ApiResult<LabelOp> {
        let token = self.next();
        Ok(match (token.symbol, token.text) {
            (true, "=" | "==") => LabelOp::Equals,
            (true, "!=") => LabelOp::NotEquals,
            (true, ">") => LabelOp::GreaterThan,
            (true, "<") => LabelOp::LessThan,
            (false, "in") => LabelOp::In,
            (false, "notin") => LabelOp::NotIn,
            _ => return Err(found(token, OPERATORS)),
        })
    }

    fn exact_value(&mut self) -> ApiResult<String> {
        let token = self.peek();
        if token == END || token.is(",") {
            return Ok(String::new());
        }
        self.next();
        if token.symbol { Err(found(token, "identifier")) } else { Ok(token.text.to_owned()) }
    }

    /// `(a,b)`; an empty place between commas or beside a parenthesis is the empty value.
    fn values(&mut self) -> ApiResult<BTreeSet<String>> {
        let open = self.next();
        if !open.is("(") {
            return Err(ApiError::bad_request(format!("found '{}' expected: '('", open.text)));
        }
        let mut out = BTreeSet::new();
        if self.peek().is(")") {
            self.next();
            return Ok(out);
        }
        loop {
            let mut token = self.next();
            if token.is(",") || token.is(")") {
                out.insert(String::new());
            } else if token.symbol {
                return Err(found(token, "',', ')' or identifier"));
            } else {
                out.insert(token.text.to_owned());
                token = self.next();
            }
            if token.is(")") {
                return Ok(out);
            }
            if !token.is(",") {
                return Err(found(token, "',' or ')'"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Selector;

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("a===b", "unable to parse requirement: found '=', expected: identifier"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a in ((", "unable to parse requirement: found '(', expected: ',', ')' or identifier"),
            ("a=b,", "found '', expected: identifier after ','"),
            (",a=b", "found ',', expected: !, identifier, or 'end of string'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>b",
                "unable to parse requirement: values: Invalid value: [\"b\"]: for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("a//b=c", "unable to parse requirement: key: Invalid value: \"a//b\": a qualified name must consist of"),
            (
                "a=-",
                "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string",
            ),
        ];
        for (text, message) in cases {
            let error = Selector::parse(text).unwrap_err().message;
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
