//! Files in, profiles out.

use super::*;

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

fn read_file(rest: &str) -> Result<Vec<Profile>, ConfigError> {
    profiles(&format!("{HEAD}{rest}"), &PluginTable::builtin())
}

/// What a profile does, in one line.
fn shown(profile: &Profile) -> String {
    let filters = profile.filters.iter().map(|f| f.name()).collect::<Vec<_>>().join(" ");
    let scores =
        profile.scores.iter().map(|s| format!("{}*{}", s.plugin.name(), s.weight)).collect::<Vec<_>>().join(" ");
    format!("{}: {filters} | {scores} | {:?} {}", profile.name, profile.enough, profile.preempts)
}

const FILTERS: &str = "NodeName NodeUnschedulable TaintToleration NodeAffinity NodePorts NodeResourcesFit \
    PodTopologySpread InterPodAffinity";

#[test]
fn a_file_that_says_nothing_is_the_default() {
    let read = read_file("").unwrap();
    let want = "PodTopologySpread*2 LeastRequested*1 NodeAffinity*2 InterPodAffinity*2 TaintToleration*3";
    assert_eq!(
        read.iter().map(shown).collect::<Vec<_>>(),
        [format!("default-scheduler: {FILTERS} | {want} | Adaptive true")]
    );
}

#[test]
fn profiles_take_out_and_add() {
    let read = read_file(
        "percentageOfNodesToScore: 40
profiles:
- schedulerName: turns
  plugins:
    score: {disabled: [{name: '*'}], enabled: [{name: RoundRobin}]}
    postFilter: {disabled: [{name: DefaultPreemption}]}
- schedulerName: dense
  percentageOfNodesToScore: 100
  plugins:
    multiPoint: {disabled: [{name: PodTopologySpread}, {name: InterPodAffinity}]}
    score: {enabled: [{name: TaintToleration, weight: 7}, {name: LeastPods, weight: 2}]}
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: memory, weight: 1}, {name: cpu}]}}
",
    )
    .unwrap();
    let few = "NodeName NodeUnschedulable TaintToleration NodeAffinity NodePorts NodeResourcesFit";
    let want = [
        format!("turns: {FILTERS} | RoundRobin*1 | Percent(40) false"),
        format!("dense: {few} | MostRequested*1 NodeAffinity*2 TaintToleration*7 LeastRequested*2 | Percent(100) true"),
    ];
    assert_eq!(read.iter().map(shown).collect::<Vec<_>>(), want);
}

#[test]
fn what_cannot_be_done_is_named_with_what_can() {
    // the file after its head, parts of the error
    let table: [(&str, &[&str]); 10] = [
        (
            "profiles: [{plugins: {score: {enabled: [{name: RoundRobbin}]}}}]",
            &["profiles[0].plugins.score.enabled", "\"RoundRobbin\"", "RoundRobin", "LeastCpu"],
        ),
        ("profiles: [{plugins: {filter: {disabled: [{name: LeastCpu}]}}}]", &["filter.disabled", "NodePorts"]),
        ("profiles: [{plugins: {postFilter: {enabled: [{name: X}]}}}]", &["postFilter", "DefaultPreemption"]),
        ("profiles: [{plugins: {queueSort: {}}}]", &["queueSort", "multiPoint"]),
        ("profiles: [{}, {schedulerName: a}]", &["profiles[0]", "schedulerName"]),
        ("profiles: [{schedulerName: a}, {schedulerName: a}]", &["profiles[1].schedulerName", "\"a\""]),
        ("percentageOfNodesToScore: 101", &["percentageOfNodesToScore", "100"]),
        ("profiles: [{plugins: {score: {enabled: [{name: Random, weight: 0}]}}}]", &["score", "between 1 and 100"]),
        ("profiles: [{pluginConfig: [{name: NodeAffinity}]}]", &["pluginConfig[0]", "NodeResourcesFit"]),
        ("leaderElection: {}", &["leaderElection", "profiles"]),
    ];
    for (rest, parts) in table {
        let said = read_file(rest).map(|_| ()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)), "{rest}: {said}");
    }
    let other = profiles("apiVersion: v1\nkind: Pod\n", &PluginTable::builtin()).map(|_| ()).unwrap_err().to_string();
    assert!(other.contains("Pod of v1") && other.contains("kubescheduler.config.k8s.io/v1"), "{other}");
}

#[test]
fn plug_ins_of_ones_own_can_be_named() {
    let table = PluginTable::builtin().score("Mine", MostRequested);
    let text = format!("{HEAD}profiles: [{{plugins: {{multiPoint: {{enabled: [{{name: Mine, weight: 5}}]}}}}}}]");
    let read = profiles(&text, &table).unwrap();
    assert!(shown(&read[0]).contains("TaintToleration*3 MostRequested*5"), "{}", shown(&read[0]));
}
