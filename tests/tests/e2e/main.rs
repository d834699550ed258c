//! The end-to-end suites, one module each.
//!
//! They share one binary, because linking 33 of them takes longer than compiling them. Tests of all suites run
//! concurrently: each has its own directories, ports and services.

mod agent_commits;
mod agent_faults;
mod agent_input;
mod bad_input;
mod circles;
mod cluster;
mod cluster_access;
mod cluster_faults;
mod cluster_metrics;
mod cluster_workspaces;
mod container;
mod container_image;
mod container_process;
mod container_sites;
mod container_stop;
mod control_plane;
mod docker_backend;
mod docker_containers;
mod docker_debug;
mod docs_requests;
mod docs_runs;
mod first_attempt;
mod git_server;
mod github;
mod hostile_repository;
mod limits;
mod mcp_clients;
mod mcp_concurrency;
mod mcp_conformance;
mod mcp_guide;
mod messages_api;
mod modules;
mod network_faults;
mod pull_requests;
mod real_programs;
mod retry;
mod servers;
mod setup;
mod ssh;
mod tasks_and_services;
mod verification;
