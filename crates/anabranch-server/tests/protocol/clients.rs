//! Clients of others, where they are there: each is a program that gets the server's address and says `fine`. A variable of the environment names what runs it, and what is named has to
//! work; where none does, the machine's own is taken, and one that cannot do what the test needs is skipped, which is said.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anabranch_server::{Server, ServerOptions, Service, ServiceOptions, TlsIdentity};

/// How long a client may take; most need seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// The newest of what the model tests ask for: an older boto3 does not know all operations.
const BOTO3: &str = "import boto3
model = boto3.client('kinesis', region_name='us-east-1').meta.service_model
assert 'CreateQueue' in model.operation_names, 'an older boto3'";

/// Of the Python that `ANABRANCH_PYTHON` names, or of `python3`.
#[test]
fn boto3_writes_and_reads_through_a_split_and_a_merge() {
    run_python("ANABRANCH_PYTHON", "import boto3", &["boto3_client.py"]);
}

/// The same client, which knows the published model.
#[test]
fn every_answer_has_the_shape_that_the_model_says() {
    run_python("ANABRANCH_PYTHON", BOTO3, &["model_client.py"]);
}

/// With its requests and answers changed to what the Java clients say and hear.
#[test]
fn every_answer_in_cbor_has_the_shape_that_the_model_says() {
    run_python("ANABRANCH_CBOR_PYTHON", &format!("{BOTO3}\nimport cbor2"), &["model_client.py", "cbor"]);
}

/// Version 1; the other is no module of a Python, and takes data otherwise.
#[test]
fn the_aws_cli_writes_and_reads_through_a_split() {
    let look = "import awscli; assert awscli.__version__.startswith('1.'), awscli.__version__";
    run_python("ANABRANCH_CLI_PYTHON", look, &["aws_cli_client.py"]);
}

/// With a Python of its own, since it wants another botocore than boto3.
#[test]
fn async_kinesis_produces_and_consumes_through_a_split_and_a_merge() {
    let look = "import aiobotocore.session; from kinesis import Consumer, Producer";
    run_python("ANABRANCH_ASYNC_PYTHON", look, &["async_kinesis_client.py"]);
}

/// Of the modules in the directory that `ANABRANCH_NODE_MODULES` names.
#[test]
fn the_javascript_client_writes_reads_and_subscribes_by_http_2() {
    let modules = std::env::var_os("ANABRANCH_NODE_MODULES");
    let node = || {
        let mut node = Command::new(named("ANABRANCH_NODE", "node"));
        if let Some(modules) = &modules {
            node.env("NODE_PATH", modules);
        }
        node
    };
    let look = "require('@aws-sdk/client-kinesis'); require('@smithy/node-http-handler')";
    if can(modules.is_some(), node().args(["-e", look])) {
        run(node, &["javascript_client.cjs"]);
    }
}

fn run_python(variable: &str, look: &str, script: &[&str]) {
    let python = named(variable, "python3");
    if can(std::env::var_os(variable).is_some(), Command::new(&python).args(["-c", look])) {
        run(|| Command::new(&python), script);
    }
}

fn named(variable: &str, otherwise: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
}

/// Whether a look at a program succeeds: it is there, and can do what the test needs. Where it has to, it is not skipped. What is said is not captured, so that a skip is seen.
fn can(has_to: bool, look: &mut Command) -> bool {
    let found = outcome(look, PATIENCE);
    let is_fine = found.as_ref().is_ok_and(|output| output.status.success());
    assert!(is_fine || !has_to, "{look:?} is asked for, and fails: {found:?}");
    if !is_fine {
        let why = found.map_or_else(|error| error.to_string(), |output| last_line(&output.stderr));
        let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", look.get_program().display());
    }
    is_fine
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().lines().last().unwrap_or_default().to_owned()
}

/// Runs a script against a server, plain and in TLS. What follows the script's name follows the address.
fn run(interpreter: impl Fn() -> Command, script: &[&str]) {
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
    let output = outcome(client, PATIENCE).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim() == "fine", "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// How a program ended, and what it said; one that does not end is ended. It says it to files, so that nothing that it started and left behind is waited for.
fn outcome(program: &mut Command, patience: Duration) -> std::io::Result<Output> {
    apart(program);
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = program.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).spawn()?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
            None => {
                child.kill()?;
                writeln!(stderr, "it did not end within {patience:?}")?;
                break child.wait()?;
            }
        }
    };
    Ok(Output { status, stdout: whole(&mut stdout)?, stderr: whole(&mut stderr)? })
}

fn whole(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Whoever runs the tests may have profiles, and a proxy that knows nothing of this server.
fn apart(program: &mut Command) {
    let nothing = if cfg!(windows) { "NUL" } else { "/dev/null" };
    program.env("AWS_CONFIG_FILE", nothing).env("AWS_SHARED_CREDENTIALS_FILE", nothing);
    program.stdin(std::process::Stdio::null());
    for variable in ["AWS_PROFILE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        program.env_remove(variable);
    }
}

#[test]
#[cfg(unix)]
fn a_client_that_does_not_end_is_ended_and_what_it_said_is_told() {
    let mut client = Command::new("sh");
    let output = outcome(client.args(["-c", "echo one >&2; exec sleep 1000"]), Duration::from_secs(2)).unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "one\nit did not end within 2s\n");
}

/// One that is named has to work.
#[test]
#[cfg(unix)]
fn a_client_that_cannot_is_skipped_unless_it_has_to() {
    assert!(can(true, &mut Command::new("true")));
    for nothing in ["false", "/nowhere/python3"] {
        assert!(!can(false, &mut Command::new(nothing)), "{nothing}");
        let refused = std::panic::catch_unwind(|| can(true, &mut Command::new(nothing)));
        assert!(refused.is_err(), "{nothing}");
    }
}

/// `ANABRANCH_CHROMIUM` or `chromium`, which `ANABRANCH_NODE` or `node` drives.
#[test]
fn a_browser_shows_streams_as_they_change() {
    let programs = [("ANABRANCH_NODE", "node"), ("ANABRANCH_CHROMIUM", "chromium")];
    let is_there = |(variable, otherwise): (&str, &str)| {
        can(std::env::var_os(variable).is_some(), Command::new(named(variable, otherwise)).arg("--version"))
    };
    if !programs.into_iter().all(is_there) {
        return;
    }
    let [node, chromium] = programs.map(|(variable, otherwise)| named(variable, otherwise));
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
