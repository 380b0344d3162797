//! The screen that follows what is used: keys in, pictures out, a look at the metrics each second.

use super::frame::{Choice, draw};
use super::model::{Sort, View};
use super::{Top, nodes, pods};
use crate::api::Conn;
use crate::terminal::{Screen, keyboard, size};
use anyhow::Result;
use futures::future::LocalBoxFuture;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

/// How often the metrics are looked at.
const PERIOD: Duration = Duration::from_secs(1);
const TITLE: &str = "minik8s";
const CTRL_C: u8 = 3;
const PAGE: usize = 5;

/// What a key means.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Quit,
    Redraw,
    Look,
}

pub(super) async fn run(conn: &Conn, options: &Top) -> Result<()> {
    // The first look is before the screen is taken, so that its failure is told as any other.
    let mut choice =
        Choice { sort: options.sort_by, containers: options.containers, everywhere: options.all_namespaces, scroll: 0 };
    let mut view = look(conn, options, choice).await?;
    let mut title = TITLE.to_owned();
    // Keys are heard while the answer is on its way.
    let mut looks = Looks::new();
    let (mut keys, mut shown) = (keyboard(), Vec::new());
    let (mut resized, mut ended) = (signal(SignalKind::window_change())?, signal(SignalKind::terminate())?);
    let screen = Screen::enter()?;
    loop {
        let (width, height) = size().unwrap_or((80, 24));
        let lines = draw(&view, &mut choice, &title, width.into(), height.into());
        screen.draw(&shown, &lines)?;
        shown = lines;
        let act = tokio::select! {
            key = keys.recv() => key.map_or(Act::Quit, |bytes| press(&bytes, &mut choice)),
            _ = resized.recv() => {
                shown.clear();
                Act::Redraw
            }
            _ = ended.recv() => Act::Quit,
            seen = looks.next() => match seen {
                None => Act::Look,
                Some(Ok(new)) => {
                    (view, title) = (new, TITLE.to_owned());
                    Act::Redraw
                }
                Some(Err(error)) => {
                    title = format!("{TITLE}: {error:#}");
                    Act::Redraw
                }
            },
        };
        match act {
            Act::Quit => return Ok(()),
            Act::Redraw => {}
            Act::Look => looks.under_way = Some(Box::pin(look(conn, options, choice))),
        }
    }
}

/// Looks at the metrics, one at a time: a slow answer is waited for, or a screen over a slow line would stand still.
struct Looks<'a, T> {
    period: Interval,
    under_way: Option<LocalBoxFuture<'a, T>>,
}

impl<T> Looks<'_, T> {
    fn new() -> Self {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { period, under_way: None }
    }

    /// What was seen; `None` where it is time to look. Nothing is lost where it is dropped.
    async fn next(&mut self) -> Option<T> {
        let Some(look) = &mut self.under_way else {
            self.period.tick().await;
            return None;
        };
        let seen = look.await;
        self.under_way = None;
        Some(seen)
    }
}

async fn look(conn: &Conn, options: &Top, choice: Choice) -> Result<View> {
    let (nodes, pods) = tokio::try_join!(nodes(conn, options), pods(conn, options, choice.everywhere))?;
    Ok(View { nodes, pods })
}

/// All that was pressed since the last reading.
fn press(mut bytes: &[u8], choice: &mut Choice) -> Act {
    let mut act = Act::Redraw;
    while !bytes.is_empty() {
        let (key, rest) = bytes.split_at(length(bytes));
        match one(key, choice) {
            Act::Quit => return Act::Quit,
            Act::Look => act = Act::Look,
            Act::Redraw => {}
        }
        bytes = rest;
    }
    act
}

/// Bytes of the first key.
fn length(bytes: &[u8]) -> usize {
    match bytes {
        [0x1b, b'[', rest @ ..] => {
            2 + rest.iter().position(|b| (0x40..=0x7e).contains(b)).map_or(rest.len(), |last| last + 1)
        }
        _ => 1,
    }
}

fn one(key: &[u8], choice: &mut Choice) -> Act {
    match key {
        [b'q' | CTRL_C, ..] => return Act::Quit,
        [b'c', ..] => choice.sort = Sort::Cpu,
        [b'm', ..] => choice.sort = Sort::Memory,
        [b'n', ..] => choice.sort = Sort::Name,
        [b'k', ..] => choice.containers = !choice.containers,
        [b'a', ..] => {
            choice.everywhere = !choice.everywhere;
            return Act::Look;
        }
        [0x1b, b'[', b'A', ..] => choice.scroll = choice.scroll.saturating_sub(1),
        [0x1b, b'[', b'B', ..] => choice.scroll = choice.scroll.saturating_add(1),
        [0x1b, b'[', b'5', ..] => choice.scroll = choice.scroll.saturating_sub(PAGE),
        [0x1b, b'[', b'6', ..] => choice.scroll = choice.scroll.saturating_add(PAGE),
        _ => {}
    }
    Act::Redraw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_the_choice() {
        let mut choice = Choice::default();
        assert_eq!(press(b"c", &mut choice), Act::Redraw);
        assert_eq!(press(b"k", &mut choice), Act::Redraw);
        assert_eq!(press(b"a", &mut choice), Act::Look);
        assert_eq!(press(b"\x1b[B", &mut choice), Act::Redraw);
        assert_eq!(choice, Choice { sort: Sort::Cpu, containers: true, everywhere: true, scroll: 1 });
        assert_eq!(press(b"\x1b[B\x1b[6~\x1b[B\x1b[A", &mut choice), Act::Redraw);
        assert_eq!(choice.scroll, 7, "each key of a reading counts");
        choice.scroll = 1;
        assert_eq!((press(b"ac", &mut choice), press(b"nq", &mut choice)), (Act::Look, Act::Quit));
        assert_eq!(press(b"\x1b[A\x1b[A", &mut choice), Act::Redraw);
        assert_eq!((choice.scroll, press(b"q", &mut choice), press(&[CTRL_C], &mut choice)), (0, Act::Quit, Act::Quit));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_takes_longer_than_a_period_arrives() {
        let (mut looks, mut seen) = (Looks::new(), Vec::new());
        for _ in 0..6 {
            match looks.next().await {
                None => looks.under_way = Some(Box::pin(tokio::time::sleep(PERIOD * 3))),
                Some(()) => seen.push(()),
            }
        }
        assert_eq!(seen.len(), 3);
    }
}
