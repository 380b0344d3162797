//! Which route a request takes: the examples of the Ingress documentation and the rules of the Gateway API.

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use minik8s_core::routing::{Backend, Host, Owner, PathRule, Plan as Wanted, Rule, Speaks, Wanted as Value, Weighted};

/// A rule whose backend is called like the rule.
fn rule(name: &str, host: &str, path: PathRule) -> Rule {
    let backend = Backend::Service { namespace: "d".into(), name: name.into(), port: 80, speaks: Speaks::default() };
    let backends = vec![Weighted {
        backend,
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
    }];
    Rule {
        owner: Owner { namespace: "d".into(), name: name.into(), kind: "Test", created: 0 },
        host: Host::parse(host, false),
        path,
        plan: Arc::new(Wanted { backends, ..Wanted::default() }),
        ..Rule::default()
    }
}

fn exact(path: &str) -> PathRule {
    PathRule::Exact(path.into())
}

fn regex(pattern: &str) -> PathRule {
    PathRule::Regex(pattern.into())
}

struct Table(RoutingTable);

impl Table {
    fn new(rules: Vec<Rule>) -> Self {
        let usual = UsualPorts { http: Some(80), https: None };
        let set = RouteSet { rules, ..RouteSet::default() };
        Self(RoutingTable::compile(&set, usual, &mut Clusters::default(), &GatewayMetrics::default()))
    }

    /// The name of the rule that answers.
    fn ask(&self, host: &str, path: &str) -> String {
        self.ask_with("GET", host, path, &[])
    }

    fn ask_with(&self, method: &str, host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> String {
        let pairs = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let headers: HeaderMap = pairs.collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let asked = Asked { host, path, query, method: &method, headers: &headers };
        match self.0.find(80, &asked) {
            Found::Route(route) => match &route.plan.targets[0].to {
                To::Cluster { cluster, .. } => cluster.name().trim_start_matches("d/").to_owned(),
                To::Nowhere { why, .. } => why.clone(),
            },
            Found::Nothing { host_known } => format!("nothing, host known: {host_known}"),
        }
    }
}

const NOTHING: &str = "nothing, host known: true";

#[test]
fn paths_match_as_the_ingress_documentation_says() {
    let prefix = PathRule::prefix;
    // Kind, paths, request path, the path that matches.
    let table: [(Vec<PathRule>, &str, Option<usize>); 23] = [
        (vec![prefix("/")], "/anything", Some(0)),
        (vec![exact("/foo")], "/foo", Some(0)),
        (vec![exact("/foo")], "/bar", None),
        (vec![exact("/foo")], "/foo/", None),
        (vec![exact("/foo/")], "/foo", None),
        (vec![prefix("/foo")], "/foo", Some(0)),
        (vec![prefix("/foo")], "/foo/", Some(0)),
        (vec![prefix("/foo/")], "/foo", Some(0)),
        (vec![prefix("/foo/")], "/foo/", Some(0)),
        (vec![prefix("/aaa/bb")], "/aaa/bbb", None),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb", Some(0)),
        (vec![prefix("/aaa/bbb/")], "/aaa/bbb", Some(0)),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb/", Some(0)),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb/ccc", Some(0)),
        (vec![prefix("/aaa/bbb")], "/aaa/bbbxyz", None),
        (vec![prefix("/"), prefix("/aaa")], "/aaa/ccc", Some(1)),
        (vec![prefix("/"), prefix("/aaa"), prefix("/aaa/bbb")], "/aaa/bbb", Some(2)),
        (vec![prefix("/"), prefix("/aaa"), prefix("/aaa/bbb")], "/ccc", Some(0)),
        (vec![prefix("/aaa")], "/ccc", None),
        (vec![prefix("/foo"), exact("/foo")], "/foo", Some(1)),
        (vec![prefix("/foo"), exact("/foo")], "/foo/bar", Some(0)),
        (vec![prefix("/a/b"), prefix("/a")], "/a/b/c", Some(0)),
        (vec![prefix("/a/b"), prefix("/a")], "/a/c", Some(1)),
    ];
    for (paths, path, want) in table {
        let rules = paths.iter().enumerate().map(|(n, p)| rule(&n.to_string(), "a.com", p.clone())).collect();
        let want = want.map_or(NOTHING.to_owned(), |n| n.to_string());
        assert_eq!(Table::new(rules).ask("a.com", path), want, "{paths:?} {path}");
    }
}

#[test]
fn the_most_specific_host_that_has_a_rule_for_the_request_wins() {
    let mut ingress = rule("one-label", "", PathRule::default());
    ingress.host = Host::parse("*.example.com", true);
    let table = Table::new(vec![
        rule("any", "", PathRule::prefix("/any")),
        rule("wide", "*.example.com", PathRule::default()),
        rule("narrow", "*.foo.example.com", PathRule::default()),
        rule("name", "foo.example.com", PathRule::prefix("/x")),
        ingress,
    ]);
    let cases = [
        ("foo.example.com", "/x", "name"),
        ("foo.example.com", "/y", "one-label"),
        ("a.foo.example.com", "/x", "narrow"),
        ("a.b.foo.example.com", "/", "narrow"),
        ("a.b.example.com", "/", "wide"),
        ("example.com", "/any/thing", "any"),
        ("other.org", "/any", "any"),
        ("other.org", "/", "nothing, host known: false"),
        ("", "/any", "any"),
    ];
    for (host, path, want) in cases {
        assert_eq!(table.ask(host, path), want, "{host}{path}");
    }
}

#[test]
fn of_rules_that_match_the_gateway_apis_precedence_decides() {
    let header = |name: &str, value: &str| (name.to_owned(), Value::Exact(value.to_owned()));
    let rules = vec![
        rule("prefix", "a.com", PathRule::prefix("/p")),
        rule("longer", "a.com", PathRule::prefix("/p/q")),
        rule("exact", "a.com", exact("/p/q/r")),
        rule("pattern", "a.com", regex("/p/[0-9]+")),
        Rule { method: Some("POST".into()), ..rule("method", "a.com", PathRule::prefix("/p")) },
        Rule { headers: vec![header("v", "1")], ..rule("header", "a.com", PathRule::prefix("/p")) },
        Rule { headers: vec![header("v", "1"), header("w", "2")], ..rule("headers", "a.com", PathRule::prefix("/p")) },
        Rule { query: vec![header("q", "x y")], ..rule("query", "a.com", PathRule::prefix("/p")) },
        Rule {
            query: vec![("q".into(), Value::Regex("[ab]+".into()))],
            ..rule("query-re", "a.com", PathRule::prefix("/p"))
        },
    ];
    let table = Table::new(rules);
    assert!(table.0.broken().is_empty(), "{:?}", table.0.broken());
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 12] = [
        ("GET", "/p", &[], "prefix"),
        ("GET", "/p/q/s", &[], "longer"),
        ("POST", "/p/q/r", &[("v", "1")], "exact"),
        ("GET", "/p/12", &[], "pattern"),
        ("GET", "/p/12a", &[], "prefix"),
        ("POST", "/p", &[("v", "1"), ("w", "2")], "method"),
        ("GET", "/p", &[("v", "1")], "header"),
        ("GET", "/p", &[("v", "1"), ("w", "2")], "headers"),
        ("GET", "/p?q=x+y", &[], "query"),
        ("GET", "/p?z=1&q=x%20y", &[("v", "1")], "header"),
        ("GET", "/p?q=abba", &[], "query-re"),
        ("GET", "/p?q=abc", &[], "prefix"),
    ];
    for (method, path, headers, want) in cases {
        assert_eq!(table.ask_with(method, "a.com", path, headers), want, "{method} {path} {headers:?}");
    }
}

#[test]
fn the_older_of_two_equal_rules_wins_then_the_name_decides() {
    let aged = |name: &str, created: i64| {
        let mut rule = rule(name, "a.com", PathRule::default());
        rule.owner.created = created;
        rule
    };
    assert_eq!(Table::new(vec![aged("young", 20), aged("old", 10)]).ask("a.com", "/"), "old");
    assert_eq!(Table::new(vec![aged("b", 10), aged("a", 10)]).ask("a.com", "/"), "a");
}

#[test]
fn expressions_that_explode_are_left_out_and_told() {
    let bad = [regex("("), regex("(a{1000}){1000}"), regex(&"(".repeat(100))];
    let mut rules: Vec<Rule> = bad.into_iter().enumerate().map(|(n, p)| rule(&n.to_string(), "a.com", p)).collect();
    rules.push(rule("good", "a.com", PathRule::default()));
    // Many good ones beside them: more than are looked for at once.
    rules.extend((0..200).map(|n| rule(&format!("r{n}"), "a.com", regex(&format!("/n{n}(/.*)?")))));
    let table = Table::new(rules);
    assert_eq!(table.0.broken().len(), 3, "{:?}", table.0.broken());
    assert_eq!(table.ask("a.com", "/aaaa"), "good");
    assert_eq!(table.ask("a.com", "/n7/x"), "r7");
    assert_eq!(table.ask("a.com", "/n199"), "r199");
    // What takes other engines exponential time is a matter of microseconds here.
    let table = Table::new(vec![rule("evil", "a.com", regex("/(a+)+$"))]);
    assert_eq!(table.ask("a.com", &format!("/{}!", "a".repeat(50_000))), NOTHING);
}

#[test]
fn ten_thousand_routes_are_told_apart() {
    let rules = (0..10_000)
        .map(|n| rule(&format!("r{n}"), &format!("h{}.example.com", n % 100), PathRule::prefix(&format!("/p{n}/q"))));
    let table = Table::new(rules.collect());
    for n in [0, 1, 99, 4_242, 9_999] {
        assert_eq!(table.ask(&format!("h{}.example.com", n % 100), &format!("/p{n}/q/r")), format!("r{n}"));
    }
    assert_eq!(table.ask("h1.example.com", "/p2/q"), NOTHING);
    // Paths that are all slashes, and hosts that are all dots, cost no more than others.
    assert_eq!(table.ask("h1.example.com", &"/".repeat(60_000)), NOTHING);
    assert!(table.ask(&".".repeat(60_000), "/").starts_with("nothing"));
}

proptest::proptest! {
    /// The table says what comparing with every rule says.
    #[test]
    fn lookups_agree_with_trying_every_rule(
        made in proptest::collection::vec((0usize..4, 0usize..3, proptest::collection::vec(0usize..2, 0..3)), 1..12),
        host in 0usize..5, asked in proptest::collection::vec(0usize..2, 0..4), slash: bool,
    ) {
        let hosts = ["", "a.x.com", "*.x.com", "*.com"];
        let text = |parts: &[usize]| parts.iter().map(|p| ["/a", "/b"][*p]).collect::<String>();
        let rules: Vec<Rule> = made.iter().enumerate().map(|(n, (host, kind, parts))| {
            let path = match kind {
                0 => exact(&format!("{}/", text(parts)).replace("//", "/")),
                1 => exact(&format!("/{}", text(parts).trim_start_matches('/'))),
                _ => PathRule::prefix(&text(parts)),
            };
            rule(&format!("r{n:02}"), hosts[*host], path)
        }).collect();
        let host = ["a.x.com", "b.x.com", "b.a.x.com", "y.com", "org"][host];
        let path = format!("{}{}", text(&asked), if slash || asked.is_empty() { "/" } else { "" });
        let path_fits = |rule: &Rule| match &rule.path {
            PathRule::Exact(p) => *p == path,
            PathRule::Prefix(p) => p == "/" || path == *p || path.starts_with(&format!("{p}/")),
            PathRule::Regex(_) => false,
        };
        let place = |rule: &Rule| match &rule.host {
            Host::Exact(_) => 0,
            Host::Below { suffix, .. } => 1000 - suffix.len(),
            Host::Any => 10_000,
        };
        let mut fit: Vec<&Rule> = rules.iter().filter(|r| r.host.matches(host) && path_fits(r)).collect();
        fit.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| route::precedence(a, b)));
        let want = fit.first().map(|r| r.owner.name.clone());
        let found = Table::new(rules.clone()).ask(host, &path);
        proptest::prop_assert_eq!(want.unwrap_or_else(|| "nothing".into()), found.split(',').next().unwrap());
    }
}

#[test]
fn paths_that_are_too_long_are_left_out_and_told() {
    let long = "/a".repeat(20_000);
    let rules = vec![
        rule("prefix", "a.com", PathRule::prefix(&long)),
        rule("exact", "a.com", exact(&long)),
        rule("good", "a.com", PathRule::default()),
    ];
    let table = Table::new(rules);
    assert_eq!(table.0.broken().len(), 2, "{:?}", table.0.broken());
    assert_eq!(table.ask("a.com", &long), "good");
}
