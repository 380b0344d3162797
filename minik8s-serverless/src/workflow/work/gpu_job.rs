//! A `GpuJob`, which whoever knows batch systems brings to its end. Its output is what its status says then: how it ended,
//! where it ran, and which files came of it, which stay with the job until the run goes.

use super::Work;
use crate::workflow::machine::Failure;
use crate::workflow::spec::GpuJobSpec;
use minik8s_core::api::Gvr;
use serde_json::{Map, Value, json};

/// What the next step is told of a job's status.
const TOLD: [&str; 6] = ["end", "exitCode", "jobId", "nodes", "attempt", "files"];

impl Work for GpuJobSpec {
    fn gvr(&self) -> Gvr {
        Gvr::new("minik8s.io", "v1alpha1", "gpujobs")
    }

    fn kind(&self) -> &'static str {
        "GpuJob"
    }

    fn spec(&self, variables: &[(&str, String)]) -> Value {
        let mut spec = self.0.clone();
        let mut env = spec.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
        env.extend(variables.iter().map(|(name, value)| json!({"name": name, "value": value})));
        spec.insert("env".to_owned(), env.into());
        spec.into()
    }

    fn ending(&self, object: &Value) -> Option<Result<Value, Failure>> {
        let status = &object["status"];
        match status["phase"].as_str()? {
            "Succeeded" => {
                let told = TOLD.iter().filter_map(|name| Some(((*name).to_owned(), status.get(*name)?.clone())));
                let name = ("job".to_owned(), object["metadata"]["name"].clone());
                Some(Ok(Value::Object(told.chain([name]).collect::<Map<_, _>>())))
            }
            "Failed" => Some(Err(failed(status))),
            _ => None,
        }
    }
}

fn failed(status: &Value) -> Failure {
    let text = |name: &str| status[name].as_str().unwrap_or_default();
    let end = text("end");
    let error = match end {
        "Timeout" => "Timeout",
        "NodeFailure" | "Preempted" | "Lost" => "Unavailable",
        "Refused" => "Refused",
        _ => "TaskFailed",
    };
    let code = status["exitCode"].as_i64().map(|code| format!(" with {code}")).unwrap_or_default();
    Failure::new(error, format!("the job ended{code} ({end}): {}", text("message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_ended_with_is_the_answer() {
        let spec = GpuJobSpec::default();
        let job = |status: Value| json!({"metadata": {"name": "j"}, "status": status});
        for phase in ["Pending", "Queued", "Running", "Fetching", "Cleaning"] {
            assert_eq!(spec.ending(&job(json!({"phase": phase, "end": "Completed"}))), None, "{phase}");
        }
        assert_eq!(spec.ending(&json!({})), None);
        let files = json!([{"name": "stdout", "bytes": 3}]);
        let good = json!({"phase": "Succeeded", "end": "Completed", "exitCode": 0, "files": files, "conditions": []});
        let want = json!({"job": "j", "end": "Completed", "exitCode": 0, "files": files});
        assert_eq!(spec.ending(&job(good)), Some(Ok(want)));
        for (end, error) in
            [("Error", "TaskFailed"), ("Timeout", "Timeout"), ("NodeFailure", "Unavailable"), ("Refused", "Refused")]
        {
            let told = spec.ending(&job(json!({"phase": "Failed", "end": end, "exitCode": 3, "message": "why"})));
            let want = Failure::new(error, format!("the job ended with 3 ({end}): why"));
            assert_eq!(told, Some(Err(want)), "{end}");
        }
    }

    #[test]
    fn a_jobs_own_environment_stays() {
        let spec: GpuJobSpec =
            serde_json::from_value(json!({"cluster": "c", "run": "r", "env": [{"name": "A", "value": "1"}]})).unwrap();
        let made = spec.spec(&[("WORKFLOW_INPUT", "{}".into())]);
        let want = json!([{"name": "A", "value": "1"}, {"name": "WORKFLOW_INPUT", "value": "{}"}]);
        assert_eq!((&made["cluster"], &made["env"]), (&json!("c"), &want));
    }
}
