//! What is checked first, and the headers of answers.

use bytes::Bytes;
use http::{Request, Response};

use anabranch_server::{Body, Credentials, Service, ServiceOptions};

use crate::support::{AUTHORIZATION, World, request};

fn answer(world: &World, request: http::Result<Request<&'static str>>) -> Response<Body> {
    world.service.respond(request.unwrap().map(Bytes::from))
}

fn shown(response: &Response<Body>) -> (u16, String) {
    (response.status().as_u16(), String::from_utf8_lossy(response.body().bytes()).into_owned())
}

#[test]
fn faults_come_in_the_service_s_order() {
    let world = World::new();
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n</AccessDeniedException>\n";
    let post = || Request::post("/");
    let json = "application/x-amz-json-1.1";
    let target = "Kinesis_20131202.ListStreams";
    let cases: [(http::Result<Request<&str>>, u16, &str); 10] = [
        (Request::get("/").body(""), 403, denied),
        (post().header("content-type", json).body(""), 400, r#"{"__type":"UnknownOperationException"}"#),
        (
            post().header("content-type", json).header("x-amz-target", target).body(""),
            400,
            r#"{"__type":"SerializationException"}"#,
        ),
        (post().body("{}"), 403, denied),
        (
            post().header("content-type", "text/plain").header("x-amz-target", target).body("{}"),
            404,
            "<UnknownOperationException/>\n",
        ),
        (
            post().header("content-type", json).header("x-amz-target", target).body("{"),
            400,
            r#"{"__type":"SerializationException"}"#,
        ),
        (
            post().header("content-type", "application/json").body("["),
            400,
            r#"{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}"#,
        ),
        (
            post().header("content-type", "application/json; x").header("x-amz-target", target).body("{}"),
            404,
            r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#,
        ),
        (
            post()
                .header("content-type", json)
                .header("x-amz-target", "Kinesis_20131202.CreateChannel")
                .header("authorization", AUTHORIZATION)
                .body("{}"),
            400,
            r#"{"__type":"UnknownOperationException"}"#,
        ),
        (
            post().header("content-type", json).header("x-amz-target", target).body("{}"),
            400,
            r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#,
        ),
    ];
    for (request, status, body) in cases {
        assert_eq!(shown(&answer(&world, request)), (status, body.to_owned()));
    }
}

#[test]
fn wrong_types_come_before_wrong_values() {
    let world = World::new();
    let response = world.service.respond(request("PutRecord", r#"{"StreamName": true, "PartitionKey": ""}"#));
    let text = r#"{"__type":"SerializationException","Message":"class java.lang.Boolean can not be converted to an String"}"#;
    assert_eq!(shown(&response), (400, text.to_owned()));
    assert_eq!(response.headers()["x-amzn-errortype"], "SerializationException");
}

#[test]
fn answers_have_ids_and_browsers_may_ask() {
    let world = World::new();
    let response = world.service.respond(request("ListStreams", "{}"));
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!((headers["x-amzn-requestid"].len(), headers["x-amz-id-2"].len()), (36, 96));
    assert!(!headers.contains_key("access-control-allow-origin"));
    let preflight = Request::options("/")
        .header("origin", "x")
        .header("access-control-request-headers", "a,b")
        .header("access-control-request-method", "POST");
    let response = answer(&world, preflight.body(""));
    let headers = response.headers();
    assert_eq!(shown(&response), (200, String::new()));
    assert_eq!(
        (&headers["access-control-allow-headers"], &headers["access-control-allow-methods"]),
        (&"a,b".parse().unwrap(), &"POST".parse().unwrap())
    );
    assert_eq!(
        (&headers["access-control-max-age"], &headers["access-control-allow-origin"]),
        (&"172800".parse().unwrap(), &"*".parse().unwrap())
    );
    assert!(!headers.contains_key("x-amz-id-2") && !headers.contains_key("content-type"));
}

#[test]
fn where_credentials_are_configured_a_signature_has_to_be_right() {
    let known = Credentials { access_key_id: "me".into(), secret_access_key: "secret".into() };
    let world = World::with(ServiceOptions { credentials: vec![known], ..ServiceOptions::default() });
    let kind = |request| world.service.respond(request).headers()["x-amzn-errortype"].clone();
    assert_eq!(kind(request("ListStreams", "{}")), "InvalidSignatureException");
    let mut stranger = request("ListStreams", "{}");
    stranger.headers_mut().insert("authorization", AUTHORIZATION.replace("=me/", "=you/").parse().unwrap());
    assert_eq!(kind(stranger), "UnrecognizedClientException");
}

#[test]
fn operations_without_output_have_no_body() {
    let world = World::new();
    let response = world.service.respond(request("CreateStream", r#"{"StreamName": "s", "ShardCount": 1}"#));
    assert_eq!(shown(&response), (200, String::new()));
    assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.1");
}

#[test]
fn a_secret_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (access_key_id, secret_access_key) = ("a-key".to_owned(), "a-secret".to_owned());
    let credentials = vec![Credentials { access_key_id, secret_access_key }];
    let service =
        Service::open(directory.path(), ServiceOptions { credentials, ..ServiceOptions::default() }).unwrap();
    let shown = format!("{service:?}");
    assert!(shown.contains("a-key") && !shown.contains("a-secret"), "{shown}");
}
