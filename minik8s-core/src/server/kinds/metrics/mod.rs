//! `metrics.k8s.io`: what pods and nodes use now. Nothing of it is stored; see [`usage`](crate::server::usage).

mod known;
mod node;
mod pod;
mod told;

pub(crate) use node::NodeMetricsKind;
pub(crate) use pod::PodMetricsKind;
pub(crate) use told::{CustomMetricKind, ExternalMetricKind};

use super::util::text;
use crate::api::Gvr;
use crate::clock::rfc3339;
use crate::server::usage::Rate;
use jiff::Timestamp;
use serde_json::{Value, json};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

const fn gvr(resource: &'static str) -> Gvr {
    Gvr::new(GROUP, VERSION, resource)
}

fn usage(rate: &Rate) -> Value {
    json!({"cpu": format!("{}n", rate.cpu_nano), "memory": format!("{}Ki", rate.memory / 1024)})
}

/// The time of a reading, whole seconds.
fn time(at: i64) -> String {
    rfc3339(Timestamp::from_millisecond(at).unwrap_or_default())
}

/// A duration as Go writes it.
fn duration(millis: i64) -> String {
    let (seconds, rest) = (millis / 1000, millis % 1000);
    match (seconds, rest) {
        (0, rest) => format!("{rest}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, rest) => format!("{seconds}.{}s", format!("{rest:03}").trim_end_matches('0')),
    }
}

/// A cell of cpu: thousandths of a core.
fn cpu_cell(nano: u64) -> Value {
    format!("{}m", nano.div_ceil(1_000_000)).into()
}

fn memory_cell(kib: u64) -> Value {
    format!("{}Mi", kib / 1024).into()
}

/// The number before a unit that is always the same here.
fn amount(usage: &Value, pointer: &str) -> u64 {
    text(usage, pointer).trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, want) in [(400, "400ms"), (1_000, "1s"), (1_020, "1.02s"), (15_001, "15.001s")] {
            assert_eq!(duration(millis), want);
        }
    }

    #[test]
    fn amounts_are_read_back_from_their_units() {
        let rate = Rate { cpu_nano: 1_500_001, memory: 5 << 20, ..Rate::default() };
        let usage = usage(&rate);
        assert_eq!((amount(&usage, "/cpu"), amount(&usage, "/memory")), (1_500_001, 5 << 10));
        assert_eq!((cpu_cell(1_500_001), memory_cell(5 << 10)), ("2m".into(), "5Mi".into()));
    }
}
