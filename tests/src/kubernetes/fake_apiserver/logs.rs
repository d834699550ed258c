//! `pods/log`, forwarded to the node.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, Uri};
use kube::{Client, Config};

use super::FakeApiServer;
use super::resource_path::{Query, ResourcePath};
use super::status_error::StatusError;

/// Requests the log from the kubelet of the pod's node.
pub async fn answer(
    server: &Arc<FakeApiServer>,
    path: &ResourcePath,
    uri: &Uri,
) -> Result<Response<Body>, StatusError> {
    let (node, path) = {
        let state = server.state();
        let pod = state.get(path)?;
        let query = Query::parse(uri);
        let names_in = |list: &str| -> Vec<&str> {
            let containers = pod["spec"][list].as_array().into_iter().flatten();
            containers.filter_map(|it| it["name"].as_str()).collect()
        };
        let (names, init) = (names_in("containers"), names_in("initContainers"));
        let container = match (query.get("container"), names.as_slice()) {
            (Some(expected), names) if names.contains(&expected) || init.contains(&expected) => {
                expected.to_owned()
            }
            (Some(expected), _) => {
                let why = format!("container {expected} is not valid for pod {}", path.name);
                return Err(StatusError::bad_request(why));
            }
            (None, [only]) => (*only).to_owned(),
            (None, names) => {
                let why = format!(
                    "a container name must be specified for pod {}, choose one of: [{}]",
                    path.name,
                    names.join(" ")
                );
                return Err(StatusError::bad_request(why));
            }
        };
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|it| !it.is_empty()) else {
            // The container has not started.
            return Ok(Response::new(Body::empty()));
        };
        let mut nodes = state.store.list("nodes", Some(""));
        let found = nodes.find(|(key, _)| key.name == node).map(|(_, node)| Arc::clone(node));
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/containerLogs/{}/{}/{container}{query}", path.namespace, path.name);
        (found, path)
    };
    let unreachable = || StatusError::fault(500);
    let node = node.ok_or_else(unreachable)?;
    let address = node["status"]["addresses"][0]["address"].as_str().ok_or_else(unreachable)?;
    let port = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    let mut config = Config::new(format!("https://{address}:{port}").parse().map_err(|_| unreachable())?);
    config.accept_invalid_certs = true;
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|_| unreachable())?;
    let request = Request::get(path).body(kube::client::Body::empty()).expect("a request");
    let answered = client.send(request).await.map_err(|_| unreachable())?;
    if answered.status().is_success() {
        return Ok(answered.map(Body::new));
    }
    let text = answered.into_body().collect_bytes().await.unwrap_or_default();
    Err(StatusError::bad_request(String::from_utf8_lossy(&text).trim().to_owned()))
}
