//! Clients of others, where they are there: boto3, of the Python that `ANABRANCH_PYTHON` names, or of `python3`; and a browser, `ANABRANCH_CHROMIUM` or `chromium`,
//! which `ANABRANCH_NODE` or `node` drives.

use std::process::Command;

use anabranch_server::{Server, ServerOptions, Service, ServiceOptions, TlsIdentity};

#[test]
fn boto3_writes_and_reads_through_a_split_and_a_merge() {
    let python = std::env::var("ANABRANCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import boto3"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no boto3");
        return;
    }
    for with_tls in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
        let tls = with_tls.then(|| TlsIdentity::self_signed(directory.path().join("tls"), "localhost").unwrap());
        let certificate = tls.as_ref().map(|identity| identity.certificate.clone());
        let server =
            Server::start_with(service, "127.0.0.1:0", &ServerOptions { tls, ..ServerOptions::default() })
                .unwrap();
        let scheme = if with_tls { "https" } else { "http" };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/boto3_client.py");
        let mut client = Command::new(&python);
        client.arg(script).arg(format!("{scheme}://{}", server.address()));
        client.envs(certificate.map(|path| ("AWS_CA_BUNDLE", path)));
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
