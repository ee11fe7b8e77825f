//! Clients of others, where they are there: each is a program that gets the server's address and says `fine`. And a browser, `ANABRANCH_CHROMIUM` or `chromium`,
//! which `ANABRANCH_NODE` or `node` drives.

use std::path::Path;
use std::process::Command;

use anabranch_server::{Server, ServerOptions, Service, ServiceOptions, TlsIdentity};

/// Of the Python that `ANABRANCH_PYTHON` names, or of `python3`.
#[test]
fn boto3_writes_and_reads_through_a_split_and_a_merge() {
    run_python("ANABRANCH_PYTHON", "boto3", &["boto3_client.py"]);
}

/// The same client, which knows the published model.
#[test]
fn every_answer_has_the_shape_that_the_model_says() {
    run_python("ANABRANCH_PYTHON", "boto3", &["model_client.py"]);
}

/// With its requests and answers changed to what the Java clients say and hear.
#[test]
fn every_answer_in_cbor_has_the_shape_that_the_model_says() {
    run_python("ANABRANCH_PYTHON", "boto3, cbor2", &["model_client.py", "cbor"]);
}

/// Of the same Python.
#[test]
fn the_aws_cli_writes_and_reads_through_a_split() {
    run_python("ANABRANCH_PYTHON", "awscli", &["aws_cli_client.py"]);
}

/// Of the Python that `ANABRANCH_ASYNC_PYTHON` names, since it wants another botocore than boto3.
#[test]
fn async_kinesis_produces_and_consumes_through_a_split_and_a_merge() {
    run_python("ANABRANCH_ASYNC_PYTHON", "kinesis", &["async_kinesis_client.py"]);
}

/// Of the modules in the directory that `ANABRANCH_NODE_MODULES` names.
#[test]
fn the_javascript_client_writes_reads_and_subscribes_by_http_2() {
    let node = || {
        let mut node = Command::new("node");
        if let Some(modules) = std::env::var_os("ANABRANCH_NODE_MODULES") {
            node.env("NODE_PATH", modules);
        }
        node
    };
    run(node, ["-e", "require('@aws-sdk/client-kinesis')"], &["javascript_client.cjs"]);
}

fn run_python(variable: &str, module: &str, script: &[&str]) {
    let python = std::env::var(variable).unwrap_or_else(|_| "python3".to_owned());
    run(|| Command::new(&python), ["-c", &format!("import {module}")], script);
}

/// Runs a script against a server, plain and in TLS, if `look` says that its interpreter has what it needs. What follows the script's name follows the address.
fn run(interpreter: impl Fn() -> Command, look: [&str; 2], script: &[&str]) {
    let found = interpreter().args(look).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {} cannot {}", interpreter().get_program().display(), look[1]);
        return;
    }
    for with_tls in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
        let tls = with_tls.then(|| TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap());
        let certificate = tls.as_ref().map(|identity| identity.certificate.clone());
        let options = ServerOptions { tls, ..ServerOptions::default() };
        let server = Server::start_with(service, "127.0.0.1:0", &options).unwrap();
        let scheme = if with_tls { "https" } else { "http" };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script[0]);
        let mut client = interpreter();
        client.arg(path).arg(format!("{scheme}://{}", server.address())).args(&script[1..]);
        if let Some(certificate) = certificate {
            client.env("AWS_CA_BUNDLE", &certificate).env("NODE_EXTRA_CA_CERTS", &certificate);
        }
        says_fine(&mut client);
        server.stop().unwrap();
    }
}

fn says_fine(client: &mut Command) {
    let output = client.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim() == "fine", "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_browser_shows_streams_as_they_change() {
    let named = |variable: &str, otherwise: &str| std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned());
    let (node, chromium) = (named("ANABRANCH_NODE", "node"), named("ANABRANCH_CHROMIUM", "chromium"));
    for program in [&node, &chromium] {
        if !Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: there is no {program}");
            return;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let options = ServerOptions { health: Some("127.0.0.1:0".parse().unwrap()), ..ServerOptions::default() };
    let server = Server::start_with(service, "127.0.0.1:0", &options).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/page.mjs");
    let addresses =
        [server.address(), server.health_address().unwrap()].map(|address| format!("http://{address}"));
    let pictures = std::env::var_os("ANABRANCH_PICTURES"); // a directory
    says_fine(Command::new(node).arg(script).arg(chromium).args(addresses).args(pictures));
    server.stop().unwrap();
}
