//! A few words of shell, one command at a time.

use crate::job::{EndReason, JobEnd, JobRequest};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What comes after a command.
pub(super) enum Step {
    Next,
    Sleep(Duration),
    End(JobEnd),
}

/// One line, and whether it belongs to the preparation.
struct Line {
    text: String,
    compiles: bool,
}

/// A process that pretends.
pub(super) struct Shell {
    lines: VecDeque<Line>,
    env: BTreeMap<String, String>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
    status: i32,
}

impl Shell {
    pub(super) fn new(request: &JobRequest, index: Option<u32>) -> Self {
        let lines =
            |text: &str, compiles| text.lines().map(move |l| Line { text: l.to_owned(), compiles }).collect::<Vec<_>>();
        let mut all = lines(request.compile.as_deref().unwrap_or_default(), true);
        all.extend(lines(&request.run, false));
        let mut env = request.env.clone();
        env.extend(index.map(|index| ("JOB_TASK_INDEX".to_owned(), index.to_string())));
        let files = request.source.iter().map(|file| (file.name.to_string(), file.content.to_vec())).collect();
        Self { lines: all.into(), env, files, out: Vec::new(), err: Vec::new(), status: 0 }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Runs the next command.
    pub(super) fn step(&mut self) -> Step {
        let Some(line) = self.lines.pop_front() else { return Step::End(end(false, self.status)) };
        let words = self.words(&line.text);
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        let to = redirection(&mut args);
        self.status = 0;
        match args.as_slice() {
            ["echo", rest @ ..] => self.write(to, format!("{}\n", rest.join(" ")).as_bytes()),
            ["printf", "%s", text] => self.write(to, text.as_bytes()),
            ["cat", file] => match self.files.get(*file).cloned() {
                Some(content) => self.write(to, &content),
                None => {
                    self.write(Some(Redirection::Error), format!("cat: {file}: No such file\n").as_bytes());
                    self.status = 1;
                }
            },
            ["sleep", seconds] => {
                return Step::Sleep(Duration::from_secs_f64(seconds.parse().unwrap_or(0.0)));
            }
            ["exit", code] => return Step::End(end(line.compiles, code.parse().unwrap_or(2))),
            ["kill", "-9", "$$"] => return Step::End(end(line.compiles, 137)),
            ["mkdir" | "ln" | ":" | "true", ..] | [] => {}
            ["false"] => self.status = 1,
            [other, ..] => {
                self.write(Some(Redirection::Error), format!("{other}: not found\n").as_bytes());
                self.status = 127;
            }
        }
        let prepared = line.compiles && self.lines.front().is_none_or(|next| !next.compiles);
        if prepared && self.status != 0 { Step::End(end(true, self.status)) } else { Step::Next }
    }

    fn write(&mut self, to: Option<Redirection<'_>>, bytes: &[u8]) {
        match to {
            None => self.out.extend_from_slice(bytes),
            Some(Redirection::Error) => self.err.extend_from_slice(bytes),
            Some(Redirection::File { name, append }) => {
                let file = self.files.entry(name.to_owned()).or_default();
                if !append {
                    file.clear();
                }
                file.extend_from_slice(bytes);
            }
        }
    }

    /// Splits a line into words: quotes are taken off, variables put in.
    fn words(&self, line: &str) -> Vec<String> {
        let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
        let mut quote = None;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '\'' | '"') => (quote, open) = (Some(c), true),
                (Some('\''), c) => word.push(c),
                (_, '$') if chars.peek().is_some_and(|c| c.is_ascii_alphabetic() || *c == '_') => {
                    let mut name = String::new();
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    word.push_str(self.env.get(&name).map_or("", String::as_str));
                    open = true;
                }
                (None, ' ') => {
                    if open || !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    open = false;
                }
                (_, c) => word.push(c),
            }
        }
        if open || !word.is_empty() {
            words.push(word);
        }
        words
    }
}

#[derive(Clone, Copy)]
enum Redirection<'a> {
    Error,
    File { name: &'a str, append: bool },
}

fn redirection<'a>(args: &mut Vec<&'a str>) -> Option<Redirection<'a>> {
    let to = match args.as_slice() {
        [.., ">&2"] => Redirection::Error,
        [.., ">", name] => Redirection::File { name, append: false },
        [.., ">>", name] => Redirection::File { name, append: true },
        _ => return None,
    };
    args.truncate(args.len() - if matches!(to, Redirection::Error) { 1 } else { 2 });
    Some(to)
}

fn end(compiles: bool, code: i32) -> JobEnd {
    let reason = match (code, compiles) {
        (0, _) => EndReason::Completed,
        (_, true) => EndReason::CompileError,
        (_, false) => EndReason::Error,
    };
    JobEnd::new(reason, Some(code))
}
