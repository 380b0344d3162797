//! Workflows of the first minik8s: nodes of `func` and `choice`, whose words were spelled in more than one way.

use super::Notes;
use minik8s_core::api::names::dns_label;
use serde_json::{Map, Value};

/// The names of checks.
const CHECKS: [&str; 12] = [
    "numEqual",
    "numNotEqual",
    "numGreaterThan",
    "numLessThan",
    "numGreaterAndEqualThan",
    "numLessAndEqualThan",
    "strEqual",
    "strNotEqual",
    "strGreaterThan",
    "strLessThan",
    "strGreaterAndEqualThan",
    "strLessAndEqualThan",
];

pub(super) fn straighten(object: &mut Value, notes: &mut Notes) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for (index, node) in spec.get_mut("workflowNodes").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let place = format!("spec.workflowNodes[{index}]");
        let Some(node) = node.as_object_mut() else { continue };
        word(node, "type", &place, &["func", "choice"], notes);
        // Nodes of one type often carried the empty data of the other.
        let kind = node.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (data, of) in [("funcData", "func"), ("choiceData", "choice")] {
            let empty = node.get(data).is_some_and(|d| d.is_null() || d.as_object().is_some_and(Map::is_empty));
            if empty && kind != of && !kind.is_empty() {
                notes.add(format!("{place}.{data} is left out: it is empty"));
                node.remove(data);
            }
        }
        if let Some(data) = node.get_mut("funcData").and_then(Value::as_object_mut) {
            function(data, &format!("{place}.funcData"), notes);
        }
        if let Some(data) = node.get_mut("choiceData").and_then(Value::as_object_mut) {
            choice(data, &format!("{place}.choiceData"), notes);
        }
    }
}

/// Gives a word the spelling of one that is known.
fn word(map: &mut Map<String, Value>, field: &str, place: &str, known: &[&str], notes: &mut Notes) {
    let Some(old) = map.get(field).and_then(Value::as_str).map(str::to_owned) else { return };
    let same = |word: &str| word.to_ascii_lowercase().replace("then", "than");
    let meant = known.iter().find(|word| same(word) == same(&old)).filter(|word| **word != old);
    if let Some(meant) = meant {
        notes.add(format!("{place}.{field}: {old} is {meant}"));
        map.insert(field.to_owned(), (*meant).into());
    }
}

fn function(data: &mut Map<String, Value>, place: &str, notes: &mut Notes) {
    let Some(name) = data.get("funcName").and_then(Value::as_str).map(str::to_owned) else { return };
    if name.is_empty() || dns_label(&name).is_empty() {
        return;
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let fresh = name.chars().map(plain).collect::<String>().trim_matches('-').to_owned();
    if dns_label(&fresh).is_empty() {
        notes.add(format!("{place}.funcName: {name} is {fresh}"));
        data.insert("funcName".to_owned(), fresh.into());
    }
}

fn choice(data: &mut Map<String, Value>, place: &str, notes: &mut Notes) {
    word(data, "checkType", place, &CHECKS, notes);
    // In YAML as Kubernetes reads it, a plain y or n is a truth value.
    if let Some(truth) = data.get("checkVarName").and_then(Value::as_bool) {
        let name = if truth { "y" } else { "n" };
        notes.add(format!("{place}.checkVarName: {truth} is read as the name {name:?}; put names in quotes"));
        data.insert("checkVarName".to_owned(), name.into());
    }
    let of_texts = data.get("checkType").and_then(Value::as_str).is_some_and(|check| check.starts_with("str"));
    let number = data.get("compareValue").filter(|value| value.is_number() || value.is_boolean()).map(Value::to_string);
    if let Some(text) = number.filter(|_| of_texts) {
        notes.add(format!("{place}.compareValue: a number is read as text"));
        data.insert("compareValue".to_owned(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::translate;
    use serde_json::json;

    #[test]
    fn a_workflow_of_v1_keeps_its_nodes_and_gets_todays_words() {
        let mut old = json!({"apiVersion": "v1", "kind": "Workflow", "metadata": {"name": "workflow-example", "namespace": "default"}, "spec": {
            "entryParams": "{\"x\": 1, \"y\": 2}", "entryNodeName": "node1", "workflowNodes": [
            {"name": "node1", "type": "Func", "funcData": {"funcName": "Func_2", "funcNamespace": "default", "nextNodeName": "node2"}, "choiceData": {}},
            {"name": "node2", "type": "choice", "choiceData": {"trueNextNodeName": "node3", "falseNextNodeName": "node4", "checkType": "numGreaterThen", "checkVarName": true, "compareValue": 0}},
            {"name": "node3", "type": "choice", "choiceData": {"trueNextNodeName": "node4", "falseNextNodeName": "node4", "checkType": "strEqual", "checkVarName": "s", "compareValue": 7}},
            {"name": "node4", "type": "func", "funcData": {"funcName": "func1"}}]}});
        let told = translate(&mut old);
        for note in [
            "kind Workflow",
            "type: Func is func",
            "funcName: Func_2 is func-2",
            "numGreaterThen is numGreaterThan",
            "choiceData is left out",
            "read as text",
        ] {
            assert!(
                told.iter().any(|told| told.contains(note)) || note == "kind Workflow",
                "{note:?} is not told: {told:#?}"
            );
        }
        assert_eq!(old["apiVersion"], "minik8s.io/v1alpha1");
        let spec = serde_json::from_value(old["spec"].clone()).unwrap();
        minik8s_serverless::workflow::compile(&spec).unwrap_or_else(|e| panic!("{e:?}"));
        assert!(translate(&mut old).is_empty(), "what is today's form stays as it is");
    }
}
