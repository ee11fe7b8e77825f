//! Clients of others, where they are there: boto3, of the Python that `ANABRANCH_PYTHON` names, or of `python3`.

use std::process::Command;

use anabranch_server::{Server, Service, ServiceOptions};

#[test]
fn boto3_writes_and_reads_through_a_split_and_a_merge() {
    let python = std::env::var("ANABRANCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import boto3"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no boto3");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path(), ServiceOptions::default()).unwrap();
    let server = Server::start(service, "127.0.0.1:0").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/boto3_client.py");
    let output = Command::new(python).arg(script).arg(format!("http://{}", server.address())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim() == "fine", "{said}{}", String::from_utf8_lossy(&output.stderr));
    server.stop().unwrap();
}
