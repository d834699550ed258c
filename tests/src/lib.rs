//! Fakes with behavior, and the harness of the end-to-end suites, the demo and the benchmarks.
//!
//! [`test_env`] is the base: `TestEnv` starts the fakes and runs the real programs against them.
//! [`docker_env`] and [`kubernetes::test_cluster`] put a `TestEnv` behind another backend, and [`ide_session`]
//! adds the Claude Code CLI as an MCP client. Only [`dispatcher_env`] stands alone: its supervisor is a script
//! that needs no fakes, so that hundreds of runs are cheap.
//!
//! | module | content |
//! |---|---|
//! | [`bench`] | scripted agent and the environment of benchmarks and agent fault tests |
//! | [`binaries`] | the workspace's programs, built once |
//! | [`command`] | command output, timeouts, polling |
//! | [`dispatcher_env`] | the dispatcher with a scripted supervisor |
//! | [`docker_env`] | a `TestEnv` whose runs are containers |
//! | [`documents`] | a project with many tasks, and scripts that write their documents |
//! | [`engine`] | a container engine and containers of the agent image |
//! | [`git_server`] | fake git host: real repositories over HTTP |
//! | [`github`] | fake GitHub REST API for the repositories of the git server |
//! | [`hostile`] | rows of the table of attacks |
//! | [`ide_session`] | the Claude Code CLI with the orchestrator's MCP server |
//! | [`invariants`] | what must hold after every run |
//! | [`kubernetes`] | a control plane (envtest or fake), and a node that runs pods |
//! | [`mcp_client`] | minimal MCP client for load tests and benchmarks |
//! | [`mcp_tools`] | third-party MCP clients, installed from lock files |
//! | [`messages_api`] | fake Messages API: plays scripts to the Claude Code CLI |
//! | [`projects`] | content of the test repositories |
//! | [`sshd`] | OpenSSH server for the repositories of the git server |
//! | [`test_env`] | all fakes together, with the real programs |
//! | [`token_proxy`] | adds a token to the requests of clients that cannot send one
//! | [`tools`] | the Claude Code CLI and the MCP servers, installed from lock files |

pub mod bench;
pub mod binaries;
pub mod command;
pub mod dispatcher_env;
pub mod docker_env;
pub mod documents;
pub mod engine;
pub mod git_server;
pub mod github;
pub mod hostile;
pub mod ide_session;
pub mod invariants;
pub mod kubernetes;
pub mod mcp_client;
pub mod mcp_tools;
pub mod messages_api;
pub mod projects;
mod server_thread;
pub mod sshd;
pub mod test_env;
pub mod token_proxy;
pub mod tools;
