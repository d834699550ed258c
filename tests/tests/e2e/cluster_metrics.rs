//! A controller exports every metric that the dashboard and the alerts of `dispatcher/deploy` query.

use std::collections::BTreeSet;
use std::path::Path;

use orchestrator_tests::kubernetes::test_cluster::TestCluster;
use orchestrator_tests::projects;
use serde_json::Value;

/// Returns the expressions of the dashboard's panels and of the alerts.
fn expressions() -> Vec<String> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dispatcher/deploy");
    let read = |file: &str| std::fs::read_to_string(deploy.join(file)).expect("a file of the deployment");
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let alerts: Value = serde_saphyr::from_str(&read("monitoring/alerts.yaml")).expect("YAML");
    let mut found = Vec::new();
    let mut places = vec![&dashboard, &alerts];
    while let Some(place) = places.pop() {
        match place {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                places.extend(fields.values());
            }
            Value::Array(values) => places.extend(values),
            _ => {}
        }
    }
    found
}

/// A metric of an expression, with its required labels.
type Query = (String, BTreeSet<String>);

/// Returns the metrics of an expression.
/// / The labels of `by (...)` apply to all of them, except `le` of histograms.
fn queries(expression: &str) -> Vec<Query> {
    let word = |text: &str| -> String {
        text.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect()
    };
    let labels_in = |list: &str| -> BTreeSet<String> {
        list.split(',')
            .map(|item| word(item.trim()))
            .filter(|name| !name.is_empty() && name != "le")
            .collect()
    };
    let mut by = BTreeSet::new();
    for (at, found) in expression.match_indices("by (") {
        let list = &expression[at + found.len()..];
        by.extend(labels_in(list.split(')').next().unwrap_or_default()));
    }
    let mut all = Vec::new();
    for (at, _) in expression.match_indices("orchestrator_") {
        let name = word(&expression[at..]);
        let mut labels = by.clone();
        if let Some(selector) = expression[at + name.len()..].strip_prefix('{') {
            // No label value contains a comma.
            labels.extend(labels_in(selector.split('}').next().unwrap_or_default()));
        }
        all.push((name, labels));
    }
    all
}

#[test]
fn every_queried_metric_is_exported() {
    let cluster = TestCluster::start(projects::fixes());
    let controller = cluster.controller();
    let run = cluster.submit("trader", "1", &[]);
    assert_eq!(cluster.end(&run)["reason"], "Completed");
    let reported = controller.metrics_text().expect("metrics");
    let queries: BTreeSet<Query> = expressions().iter().flat_map(|expression| queries(expression)).collect();
    assert!(queries.len() > 8, "{queries:?}");
    // A counter that starts with the first lost run would never increase.
    let lost =
        "orchestrator_runs_finished_total{service=\"trader\",phase=\"Failed\",reason=\"SupervisorLost\"} 0";
    assert!(reported.lines().any(|line| line == lost), "{reported}");
    for (name, labels) in queries {
        let lines = reported
            .lines()
            .filter(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let fits = |line: &str| labels.iter().all(|label| line.contains(&format!("{label}=\"")));
        assert!(lines.clone().any(fits), "{name} with {labels:?} is not among\n{reported}");
    }
}
