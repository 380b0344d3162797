//! Words that a field may hold, where they are few: spelled in the wrong case they are meant nevertheless.

const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const PULLS: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Type, field, words.
const WORDS: [(&str, &str, &[&str]); 10] = [
    ("PodSpec", "restartPolicy", &POLICIES),
    ("PodSpec", "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("Container", "imagePullPolicy", &PULLS),
    ("ContainerPort", "protocol", &PROTOCOLS),
    ("ServicePort", "protocol", &PROTOCOLS),
    ("ServiceSpec", "type", &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    ("ServiceSpec", "sessionAffinity", &["None", "ClientIP"]),
    ("HPAScalingPolicy", "type", &["Pods", "Percent"]),
    ("HPAScalingRules", "selectPolicy", &["Max", "Min", "Disabled"]),
    ("MetricTarget", "type", &["Utilization", "Value", "AverageValue"]),
];

/// The word that was meant, where it was spelled otherwise.
pub(super) fn meant(type_name: &str, field: &str, word: &str) -> Option<&'static str> {
    let (.., words) = WORDS.iter().find(|(of, name, _)| *of == type_name && *name == field)?;
    words.iter().find(|known| known.eq_ignore_ascii_case(word)).copied().filter(|known| *known != word)
}
