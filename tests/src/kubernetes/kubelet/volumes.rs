//! The volumes of a pod as directories of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::environment::{Lookup, Waiting, field_of};
use super::mounts::Mounts;
use super::{Inner, items, text};

/// The ConfigMaps and Secrets that a pod references.
#[derive(Default)]
pub struct Objects(BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>);

impl Lookup for Objects {
    fn data(&self, resource: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.0.get(&(resource.to_owned(), name.to_owned())).cloned()
    }
}

impl Objects {
    /// Fetches the existing objects that the pod references.
    pub async fn fetch(inner: &Inner, pod: &Value) -> Result<Self, kube::Error> {
        let namespace = text(pod, "/metadata/namespace");
        let maps: Api<ConfigMap> = Api::namespaced(inner.client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(inner.client.clone(), namespace);
        let mut found = Self::default();
        for (resource, name) in named(&pod["spec"]) {
            let data = if resource == "configmaps" {
                maps.get_opt(&name).await?.map(|map| {
                    let plain = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
                    plain.chain(binary).collect()
                })
            } else {
                let secret = secrets.get_opt(&name).await?;
                secret.map(|it| it.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
            };
            if let Some(data) = data {
                found.0.insert((resource, name), data);
            }
        }
        Ok(found)
    }
}

/// Returns the ConfigMaps and Secrets that a pod specification references.
fn named(spec: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut places = vec![spec];
    while let Some(place) = places.pop() {
        match place {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let resource = match field.as_str() {
                        "configMap" | "configMapRef" | "configMapKeyRef" => "configmaps",
                        "secret" | "secretRef" | "secretKeyRef" => "secrets",
                        _ => "",
                    };
                    let name = value["name"].as_str().or_else(|| value["secretName"].as_str());
                    if let Some(name) = name.filter(|_| !resource.is_empty()) {
                        found.push((resource.to_owned(), name.to_owned()));
                    }
                    places.push(value);
                }
            }
            Value::Array(values) => places.extend(values),
            _ => {}
        }
    }
    found
}

/// The volumes of a pod.
pub struct Volumes {
    /// Directories on this machine, by the name of the volume.
    pub folders: BTreeMap<String, PathBuf>,
    /// Files that came from ConfigMaps, in which paths are translated.
    texts: Vec<PathBuf>,
}

impl Volumes {
    /// Creates the directories of a pod's volumes and fills them.
    pub async fn create(inner: &Arc<Inner>, pod: &Value, objects: &Objects) -> Result<Self, Waiting> {
        let folder = inner.pod_folder(text(pod, "/metadata/uid"));
        let mut created = Self { folders: BTreeMap::new(), texts: Vec::new() };
        for volume in items(pod, "/spec/volumes") {
            let name = text(volume, "/name");
            let here = folder.join("volumes").join(name);
            let filled = fill(inner, pod, volume, here, objects, &mut created.texts).await?;
            created.folders.insert(name.to_owned(), filled);
        }
        Ok(created)
    }

    /// Translates the paths in ConfigMaps.
    pub fn translate(&self, mounts: &Mounts) {
        for file in &self.texts {
            let before = fs::read_to_string(file).expect("a text in a ConfigMap");
            fs::write(file, mounts.translate(&before)).expect("a file in a volume");
        }
    }
}

async fn fill(
    inner: &Arc<Inner>,
    pod: &Value,
    volume: &Value,
    here: PathBuf,
    objects: &Objects,
    texts: &mut Vec<PathBuf>,
) -> Result<PathBuf, Waiting> {
    if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
        return bind_claim(inner, text(pod, "/metadata/namespace"), claim).await;
    }
    if let Some(path) = volume.pointer("/hostPath/path").and_then(Value::as_str) {
        return Ok(PathBuf::from(path));
    }
    fs::create_dir_all(&here).expect("a folder for a volume");
    let sources = if volume["projected"].is_object() {
        items(volume, "/projected/sources").cloned().collect()
    } else {
        vec![volume.clone()]
    };
    let mode = ["projected", "configMap", "secret", "downwardAPI"]
        .iter()
        .find_map(|kind| volume[*kind]["defaultMode"].as_u64());
    let mode = u32::try_from(mode.unwrap_or(0o644)).unwrap_or(0o644);
    for source in &sources {
        for (path, bytes) in files_of(inner, pod, source, objects)? {
            let file = here.join(path);
            fs::create_dir_all(file.parent().expect("a file in a folder")).expect("a folder in a volume");
            fs::write(&file, bytes).expect("a file in a volume");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
            texts.extend(source["configMap"].is_object().then_some(file));
        }
    }
    Ok(here)
}

fn files_of(
    inner: &Inner,
    pod: &Value,
    source: &Value,
    objects: &Objects,
) -> Result<Vec<(String, Vec<u8>)>, Waiting> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for item in items(source, "/downwardAPI/items") {
        let value = field_of(pod, text(item, "/fieldRef/fieldPath"));
        files.push((text(item, "/path").to_owned(), value.into_bytes()));
    }
    if source["serviceAccountToken"].is_object() {
        let account = field_of(pod, "spec.serviceAccountName");
        let token = (inner.account_token)(text(pod, "/metadata/namespace"), &account);
        files.push((text(source, "/serviceAccountToken/path").to_owned(), token.into_bytes()));
    }
    for (kind, resource) in [("configMap", "configmaps"), ("secret", "secrets")] {
        let reference = &source[kind];
        if reference.is_null() {
            continue;
        }
        let name =
            reference["name"].as_str().or_else(|| reference["secretName"].as_str()).unwrap_or_default();
        let Some(data) = objects.data(resource, name) else {
            if reference["optional"] == true {
                continue;
            }
            // The pod's reason if a volume is missing; the event has the details.
            let message = format!("{} \"{name}\" not found", resource.trim_end_matches('s'));
            return Err(Waiting { reason: "ContainerCreating", message });
        };
        match reference["items"].as_array() {
            None => files.extend(data),
            Some(chosen) => {
                for item in chosen {
                    let key = text(item, "/key");
                    match data.get(key) {
                        Some(value) => files.push((text(item, "/path").to_owned(), value.clone())),
                        None if reference["optional"] == true => {}
                        None => {
                            let message = format!("references non-existent {kind} key: {key}");
                            return Err(Waiting { reason: "ContainerCreating", message });
                        }
                    }
                }
            }
        }
    }
    Ok(files)
}

/// Returns the directory of a claim, which outlives its pods, and binds the claim.
async fn bind_claim(inner: &Arc<Inner>, namespace: &str, name: &str) -> Result<PathBuf, Waiting> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(inner.client.clone(), namespace);
    let waiting = |message: String| Waiting { reason: "ContainerCreating", message };
    let claim = claims.get(name).await.map_err(|error| waiting(error.to_string()))?;
    let claim = json!(claim);
    if text(&claim, "/status/phase") != "Bound" {
        let status = json!({"status": {
            "phase": "Bound",
            "accessModes": claim["spec"]["accessModes"],
            "capacity": claim["spec"]["resources"]["requests"],
        }});
        claims
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .map_err(|error| waiting(error.to_string()))?;
    }
    let folder =
        claims_folder(inner.folder(), namespace).join(format!("{name}@{}", text(&claim, "/metadata/uid")));
    fs::create_dir_all(&folder).expect("a folder for a claim");
    Ok(folder)
}

fn claims_folder(root: &Path, namespace: &str) -> PathBuf {
    root.join("claims").join(namespace)
}

/// Returns the newest directory of a claim of this name.
pub fn find_claim(root: &Path, namespace: &str, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(claims_folder(root, namespace)).ok()?.flatten();
    let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().split('@').next() == Some(name));
    of_it.max_by_key(|entry| entry.metadata().and_then(|it| it.created()).ok()).map(|entry| entry.path())
}
