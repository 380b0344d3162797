//! The short shape, of `func` and `choice` nodes, in the words of the full one.

use super::spec::{ChoiceSpec, FunctionRef, NodeSpec, ProgramSpec, RuleSpec, StepSpec, TaskSpec, WorkflowSpec};
use minik8s_core::server::FieldErrors;
use serde_json::Value;

/// True where a workflow is written in the short shape.
pub(super) fn is_short(spec: &WorkflowSpec) -> bool {
    !spec.workflow_nodes.is_empty() || !spec.entry_node_name.is_empty()
}

/// The same steps in the full shape.
pub(super) fn lengthen(spec: &WorkflowSpec, errors: &mut FieldErrors) -> ProgramSpec {
    let nodes = spec.workflow_nodes.iter().enumerate();
    let steps = nodes.map(|(index, node)| step(node, &format!("spec.workflowNodes[{index}]"), errors)).collect();
    ProgramSpec { start_at: spec.entry_node_name.clone(), steps }
}

fn step(node: &NodeSpec, place: &str, errors: &mut FieldErrors) -> StepSpec {
    let mut step = StepSpec { name: node.name.clone(), ..StepSpec::default() };
    match (node.kind.as_str(), &node.func_data, &node.choice_data) {
        ("func", Some(data), _) => {
            let function = FunctionRef { name: data.func_name.clone(), namespace: data.func_namespace.clone() };
            step.task = Some(TaskSpec { function: Some(function), ..TaskSpec::default() });
            step.next.clone_from(&data.next_node_name);
            step.end = data.next_node_name.is_empty();
        }
        ("choice", _, Some(data)) => {
            let rule = RuleSpec {
                check: data.check_type.clone(),
                variable: data.check_var_name.clone(),
                value: Some(data.compare_value.clone()),
                next: data.true_next_node_name.clone(),
                ..RuleSpec::default()
            };
            if data.false_next_node_name.is_empty() {
                errors.required(
                    format!("{place}.choiceData.falseNextNodeName"),
                    "where to go where the check does not hold",
                );
            }
            step.choice = Some(ChoiceSpec { rules: vec![rule], default: data.false_next_node_name.clone() });
        }
        ("func", None, _) => errors.required(format!("{place}.funcData"), "what a func node calls"),
        ("choice", _, None) => errors.required(format!("{place}.choiceData"), "what a choice node checks"),
        (other, ..) => errors.unsupported(format!("{place}.type"), other, &["func", "choice"]),
    }
    step
}

/// The field of the short shape that a field of the full one was made of.
pub(super) fn field(full: &str) -> String {
    let words = [
        ("spec.steps[", "spec.workflowNodes["),
        ("spec.startAt", "spec.entryNodeName"),
        (".choice.rules[0].next", ".choiceData.trueNextNodeName"),
        (".choice.rules[0].check", ".choiceData.checkType"),
        (".choice.rules[0].variable", ".choiceData.checkVarName"),
        (".choice.rules[0].value", ".choiceData.compareValue"),
        (".choice.default", ".choiceData.falseNextNodeName"),
        (".task.function.name", ".funcData.funcName"),
        (".task.function.namespace", ".funcData.funcNamespace"),
    ];
    let mut field = words.iter().fold(full.to_owned(), |field, (full, short)| field.replace(full, short));
    if field.ends_with("].next") {
        field = field.replace("].next", "].funcData.nextNodeName");
    }
    if field == "spec.steps" { "spec.workflowNodes".to_owned() } else { field }
}

/// `entryParams` is JSON, or the text of JSON.
pub(super) fn input(params: &Value, errors: &mut FieldErrors) -> Value {
    match params {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|e| {
            errors.invalid("spec.entryParams", params, &format!("is not JSON: {e}"));
            Value::Null
        }),
        other => other.clone(),
    }
}
