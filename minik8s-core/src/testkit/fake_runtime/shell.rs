//! A few words of shell, so that a fake cluster behaves plausibly without scripts: `sh -c 'echo hi; sleep 1; exit 3'`.
//! Files exist only where mounts lead to the host.

use super::log::host_path;
use crate::runtime::{ContainerSpec, Output};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a simulated process sees of its world.
pub(super) struct World {
    pub(super) spec: ContainerSpec,
    pub(super) hostname: String,
    /// Unknown programs run for ever (a container's main process) or print their command line (`exec`).
    pub(super) main: bool,
    pub(super) out: Box<dyn Fn(Output) + Send + Sync>,
    /// What `trap` set: the code to end with at SIGTERM, or `None` inside for "ignore".
    pub(super) trap: parking_lot::Mutex<Option<Option<i32>>>,
}

/// How a command ended: it may end the whole process.
pub(super) enum Flow {
    Next(i32),
    Exit(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Join {
    Always,
    IfOk,
    IfFailed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    join: Join,
    words: Vec<String>,
    to: Option<(String, bool)>,
    stderr: bool,
    body: Option<String>,
}

impl World {
    /// Runs a command line to its end.
    pub(super) async fn run(&self, argv: &[String], stdin: &mut Option<mpsc::Receiver<Bytes>>) -> i32 {
        match self.command(argv, None, false, stdin).await {
            Flow::Next(code) | Flow::Exit(code) => code,
        }
    }

    fn env(&self, name: &str) -> String {
        let last = self.spec.env.iter().rev().find(|(key, _)| key == name);
        match (last, name) {
            (Some((_, value)), _) => value.clone(),
            (None, "HOSTNAME") => self.hostname.clone(),
            _ => String::new(),
        }
    }

    fn script<'a>(&'a self, text: &'a str, stdin: &'a mut Option<mpsc::Receiver<Bytes>>) -> BoxFuture<'a, Flow> {
        Box::pin(async move {
            let mut status = 0;
            for command in parse(text, &|name| self.env(name)) {
                let skip = match command.join {
                    Join::Always => false,
                    Join::IfOk => status != 0,
                    Join::IfFailed => status == 0,
                };
                if skip {
                    continue;
                }
                let flow = match &command.body {
                    Some(body) => loop {
                        if let Flow::Exit(code) = self.script(body, stdin).await {
                            break Flow::Exit(code);
                        }
                        // A loop without `sleep` must not starve the others.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    },
                    None => self.command(&command.words, command.to.as_ref(), command.stderr, stdin).await,
                };
                match flow {
                    Flow::Next(code) => status = code,
                    exit => return exit,
                }
            }
            Flow::Next(status)
        })
    }

    async fn command(
        &self,
        argv: &[String],
        to: Option<&(String, bool)>,
        stderr: bool,
        stdin: &mut Option<mpsc::Receiver<Bytes>>,
    ) -> Flow {
        let argv = argv.strip_prefix(&["exec".to_owned()][..]).unwrap_or(argv);
        let name = argv.first().map_or("", |p| p.rsplit('/').next().unwrap_or(p));
        let args: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
        let first = args.first().copied().unwrap_or_default();
        let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        let code = match name {
            "sh" | "bash" | "ash" if first == "-c" => return self.script(args.get(1).unwrap_or(&""), stdin).await,
            "exit" => return Flow::Exit(first.parse().unwrap_or(0)),
            "kill" if args.contains(&"$$") => return Flow::Exit(if first == "-9" { 137 } else { 143 }),
            "trap" => self.trap(&args),
            "sleep" if first == "infinity" => std::future::pending::<i32>().await,
            "sleep" => {
                tokio::time::sleep(Duration::from_secs_f64(number(first).clamp(0.0, 1e9))).await;
                0
            }
            "false" => 1,
            "true" | ":" | "sync" | "wait" | "cd" => 0,
            "test" | "[" => i32::from(!self.test(&args)),
            "cat" if args.is_empty() => self.copy(stdin).await,
            "sh" | "bash" | "ash" if stdin.is_some() => self.lines(stdin).await,
            _ => match self.text(name, &args) {
                Some(Ok(text)) => self.emit(text, to, stderr),
                Some(Err(message)) => self.emit(format!("{message}\n"), None, true).max(1),
                None if self.main => std::future::pending::<i32>().await,
                None => self.emit(format!("{}\n", argv.join(" ")), to, stderr),
            },
        };
        Flow::Next(code)
    }

    /// What a printing command prints; `None` for unknown programs.
    fn text(&self, name: &str, args: &[&str]) -> Option<Result<String, String>> {
        let first = args.first().copied().unwrap_or_default();
        let text = match name {
            "echo" if first == "-n" => args[1..].join(" "),
            "echo" => format!("{}\n", args.join(" ")),
            "printf" => first.replace("\\n", "\n"),
            "hostname" => format!("{}\n", self.hostname),
            "pwd" if self.spec.working_dir.is_empty() => "/\n".to_owned(),
            "pwd" => format!("{}\n", self.spec.working_dir),
            "id" => {
                let (user, group) = (self.spec.security.user.unwrap_or(0), self.spec.security.group.unwrap_or(0));
                match first {
                    "-u" => format!("{user}\n"),
                    "-g" => format!("{group}\n"),
                    _ => format!("uid={user} gid={group}\n"),
                }
            }
            "printenv" if !args.is_empty() => {
                return Some(match self.env(first) {
                    value if value.is_empty() => Err(String::new()),
                    value => Ok(format!("{value}\n")),
                });
            }
            "env" | "printenv" => self.spec.env.iter().map(|(k, v)| format!("{k}={v}\n")).collect(),
            "cat" => return Some(args.iter().map(|path| self.read(path)).collect()),
            "ls" => return Some(self.list(first)),
            _ => return None,
        };
        Some(Ok(text))
    }

    fn read(&self, path: &str) -> Result<String, String> {
        let missing = || format!("cat: {path}: No such file or directory");
        let (host, _) = host_path(&self.spec, path).ok_or_else(missing)?;
        std::fs::read(host).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|_| missing())
    }

    fn list(&self, path: &str) -> Result<String, String> {
        let missing = || format!("ls: {path}: No such file or directory");
        let (host, _) = host_path(&self.spec, path).ok_or_else(missing)?;
        let mut names: Vec<String> = std::fs::read_dir(host)
            .map_err(|_| missing())?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        Ok(names.iter().map(|name| format!("{name}\n")).collect())
    }

    fn test(&self, args: &[&str]) -> bool {
        let there = |path: &str| host_path(&self.spec, path).is_some_and(|(host, _)| host.exists());
        match args {
            ["-n", text, ..] => !text.is_empty(),
            ["-z", text, ..] => text.is_empty(),
            ["-e" | "-f" | "-d", path, ..] => there(path),
            [a, "=" | "==", b, ..] => a == b,
            [a, "!=", b, ..] => a != b,
            _ => false,
        }
    }

    fn trap(&self, args: &[&str]) -> i32 {
        let action = args.first().copied().unwrap_or_default();
        let code = action.strip_prefix("exit").map(|rest| rest.trim().parse().unwrap_or(0));
        *self.trap.lock() = Some(code);
        0
    }

    fn emit(&self, text: String, to: Option<&(String, bool)>, stderr: bool) -> i32 {
        match to {
            None if stderr => (self.out)(Output::Stderr(text.into())),
            None => (self.out)(Output::Stdout(text.into())),
            Some((path, append)) => return self.write(path, &text, *append),
        }
        0
    }

    fn write(&self, path: &str, text: &str, append: bool) -> i32 {
        if path == "/dev/null" {
            return 0;
        }
        let written = match host_path(&self.spec, path) {
            Some((host, true)) => std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .append(append)
                .truncate(!append)
                .open(host)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|e| e.to_string()),
            Some((_, false)) => Err("Read-only file system".to_owned()),
            None if self.spec.security.read_only_root => Err("Read-only file system".to_owned()),
            None => Ok(()),
        };
        match written {
            Ok(()) => 0,
            Err(why) => self.emit(format!("sh: can't create {path}: {why}\n"), None, true).max(1),
        }
    }

    async fn copy(&self, stdin: &mut Option<mpsc::Receiver<Bytes>>) -> i32 {
        while let Some(bytes) = next(stdin).await {
            (self.out)(Output::Stdout(bytes));
        }
        0
    }

    async fn lines(&self, stdin: &mut Option<mpsc::Receiver<Bytes>>) -> i32 {
        while let Some(bytes) = next(stdin).await {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for line in text.lines() {
                if let Flow::Exit(code) = self.script(line, &mut None).await {
                    return code;
                }
            }
        }
        0
    }
}

/// The commands of a command line, each as its words.
pub(super) fn commands(argv: &[String]) -> Vec<Vec<String>> {
    match argv {
        [shell, flag, script, ..] if flag == "-c" && shell.ends_with("sh") => {
            parse(script, &|_| String::new()).into_iter().map(|c| c.words).collect()
        }
        argv => vec![argv.to_vec()],
    }
}

async fn next(stdin: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    stdin.as_mut()?.recv().await
}

/// Splits a script into commands: `;`, line ends, `&&`, `||`, `while …; do …; done`, redirections.
fn parse(text: &str, env: &dyn Fn(&str) -> String) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut join = Join::Always;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some((body, after)) = while_loop(rest) {
            let body = Some(body.to_owned());
            commands.push(Command { join: join.clone(), words: vec![], to: None, stderr: false, body });
            rest = after.trim_start_matches([';', ' ', '\n']);
            continue;
        }
        let (words, separator, after) = split(rest, env);
        if !words.is_empty() {
            commands.push(redirected(join, words));
        }
        join = separator;
        rest = after.trim_start();
    }
    commands
}

fn while_loop(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("while ")?;
    let start = rest.find("do ").map(|i| i + 3).or_else(|| rest.find("do\n").map(|i| i + 3))?;
    let end = rest.rfind("done")?;
    Some((rest.get(start..end)?, rest.get(end + 4..)?))
}

fn redirected(join: Join, words: Vec<String>) -> Command {
    let mut command = Command { join, words: vec![], to: None, stderr: false, body: None };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            ">&2" | "1>&2" => command.stderr = true,
            "2>&1" => {}
            ">" | ">>" => command.to = words.next().map(|path| (path, word == ">>")),
            _ if word.starts_with(">>") => command.to = Some((word[2..].to_owned(), true)),
            _ if word.starts_with('>') => command.to = Some((word[1..].to_owned(), false)),
            _ => command.words.push(word),
        }
    }
    command
}

/// The words of the first command, what joins it to the next, and the rest.
fn split<'a>(text: &'a str, env: &dyn Fn(&str) -> String) -> (Vec<String>, Join, &'a str) {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    let mut end = (Join::Always, "");
    while let Some((at, c)) = chars.next() {
        let following = chars.peek().map(|(_, c)| *c);
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (Some('\''), _) => word.push(c),
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (_, '$') => {
                let name = variable(&text[at + 1..]);
                (0..name.len() + if text[at + 1..].starts_with('{') { 2 } else { 0 }).for_each(|_| {
                    chars.next();
                });
                word.push_str(&if name == "$" { "$$".to_owned() } else { env(name) });
            }
            (None, '&' | '|') if following == Some(c) => {
                end = (if c == '&' { Join::IfOk } else { Join::IfFailed }, &text[at + 2..]);
                break;
            }
            (None, ';' | '\n') => {
                end = (Join::Always, &text[at + 1..]);
                break;
            }
            (None, c) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            _ => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    (words, end.0, end.1)
}

fn variable(text: &str) -> &str {
    if text.starts_with('$') {
        return "$";
    }
    let text = text.strip_prefix('{').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_splits_into_commands() {
        let env = |name: &str| if name == "A" { "1 2".to_owned() } else { String::new() };
        let words = |text: &str| -> Vec<Vec<String>> { parse(text, &env).into_iter().map(|c| c.words).collect() };
        assert_eq!(words("echo 'a; b' && exit 3"), [vec!["echo", "a; b"], vec!["exit", "3"]]);
        assert_eq!(words("echo \"x${A}y\" $A"), [vec!["echo", "x1 2y", "1 2"]]);
        assert_eq!(words("kill -9 $$"), [vec!["kill", "-9", "$$"]]);
        assert_eq!(words("trap '' TERM"), [vec!["trap", "", "TERM"]]);
        let looped = parse("while true; do date; sleep 1; done; echo end", &env);
        assert_eq!(looped[0].body.as_deref(), Some("date; sleep 1; "));
        assert_eq!(looped[1].words, ["echo", "end"]);
        assert_eq!(parse("echo a > /f", &env)[0].to, Some(("/f".to_owned(), false)));
        assert!(parse("echo a >&2", &env)[0].stderr);
    }
}
