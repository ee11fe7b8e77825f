//! `serve`: streams behind the Kinesis protocol.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anabranch_server::{
    Credentials, OpenError, Profile, Server, ServerOptions, Service, ServiceOptions, TlsError, TlsIdentity, limits,
};
use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::interrupt::{Interrupt, PATIENCE};
use crate::open::DurabilityArg;
use crate::output::Output;

/// Where the data is, where to listen, and how to behave.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The directory of all streams; made if there is none
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: PathBuf,

    /// The port to listen at; 0 takes one that is free
    #[arg(long, default_value_t = 4567)]
    port: u16,

    /// The address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// What an acknowledged record survives, for streams that are made from now on
    #[arg(long, value_enum, default_value = "synced")]
    durability: DurabilityArg,

    /// The account of clients whose access key is not twelve digits
    #[arg(long, default_value = "000000000000")]
    account: String,

    /// The region of clients whose signature names none
    #[arg(long, default_value = "us-east-1")]
    region: String,

    /// Open shards that an account may have in a region
    #[arg(long, default_value_t = limits::DEFAULT_SHARD_LIMIT)]
    shard_limit: u32,

    /// Throttle as the service does: shards, and control operations by the second and by the day
    #[arg(long)]
    enforce_limits: bool,

    /// How many milliseconds a stream is said to be CREATING, UPDATING or DELETING after a change
    #[arg(long, value_name = "MS", default_value_t = 0)]
    transition_delay: u64,

    /// How many seconds a shard iterator is good for
    #[arg(long, value_name = "SECONDS", default_value_t = limits::ITERATOR_LIFETIME.as_secs())]
    iterator_lifetime: u64,

    /// Of which year the service is: what came later is not there
    #[arg(long, value_enum, default_value = "current")]
    profile: ProfileArg,

    /// Who may ask, by access key and secret; can be given again, and in the environment with commas between. Without any, everybody may
    #[arg(
        long,
        value_name = "KEY:SECRET",
        env = "ANABRANCH_CREDENTIALS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    credentials: Vec<SecretArg>,

    /// Make a stream, unless there is one of the name; can be given again
    #[arg(long, value_name = "NAME:SHARDS", value_parser = parse_stream)]
    create: Vec<(String, u32)>,

    /// Speak TLS, as who these files in PEM say, or as `self-signed`: an identity for this machine, made once and kept in DIR/tls
    #[arg(long, value_name = "CERT:KEY", value_parser = parse_identity)]
    tls: Option<IdentityArg>,

    /// Tell here how the server is, in plain HTTP: /health, /metrics for Prometheus, and a page for a browser
    #[arg(long, value_name = "ADDRESS:PORT")]
    health: Option<SocketAddr>,
}

/// Of which year the service is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArg {
    Current,
    #[value(name = "2020")]
    Y2020,
}

impl From<ProfileArg> for Profile {
    fn from(arg: ProfileArg) -> Self {
        match arg {
            ProfileArg::Current => Self::Current,
            ProfileArg::Y2020 => Self::Y2020,
        }
    }
}

/// What is not to be shown.
#[derive(Clone)]
struct SecretArg(String);

impl From<String> for SecretArg {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretArg")
    }
}

/// Who the server is.
#[derive(Debug, Clone)]
enum IdentityArg {
    SelfSigned,
    Files { certificate: PathBuf, key: PathBuf },
}

fn parse_stream(text: &str) -> Result<(String, u32), String> {
    let (name, shards) = text.split_once(':').unwrap_or((text, "1"));
    let shards = shards.parse().map_err(|_| format!("{shards:?} is no number of shards"))?;
    Ok((name.to_owned(), shards))
}

fn parse_identity(text: &str) -> Result<IdentityArg, String> {
    if text == "self-signed" {
        return Ok(IdentityArg::SelfSigned);
    }
    let (certificate, key) = text.split_once(':').ok_or("neither CERT.pem:KEY.pem nor self-signed")?;
    Ok(IdentityArg::Files { certificate: certificate.into(), key: key.into() })
}

/// Told without the text: it may be a secret.
fn parse_credentials(text: &str) -> Result<Credentials, Failure> {
    let parts = text.split_once(':').filter(|(key, secret)| !key.is_empty() && !secret.is_empty());
    let (key, secret) =
        parts.ok_or_else(|| Failure::Usage("credentials are an access key, a colon and a secret".to_owned()))?;
    Ok(Credentials { access_key_id: key.to_owned(), secret_access_key: secret.to_owned() })
}

/// What whoever started it waits for.
#[derive(Serialize)]
struct Listening {
    address: String,
    /// The file that clients are to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
}

/// Serves until the user asks it to stop; then everything is durable.
pub(crate) fn run(args: &ServeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install()?;
    let options = ServiceOptions {
        durability: args.durability.into(),
        account: args.account.clone(),
        region: args.region.clone(),
        shard_limit: args.shard_limit,
        enforce_limits: args.enforce_limits,
        transition_delay: Duration::from_millis(args.transition_delay),
        iterator_lifetime: Duration::from_secs(args.iterator_lifetime),
        profile: args.profile.into(),
        credentials: args
            .credentials
            .iter()
            .map(|SecretArg(text)| parse_credentials(text))
            .collect::<Result<_, _>>()?,
        ..ServiceOptions::default()
    };
    let service = Service::open(&args.data, options).map_err(failure)?;
    for (name, shards) in &args.create {
        let created = service.create_stream(name, *shards);
        created.map_err(|error| Failure::Usage(format!("stream {name}: {error}")))?;
    }
    let place = format!("{}:{}", args.host, args.port);
    let tls = identity(args)?;
    let listening = ServerOptions { tls: tls.clone(), health: args.health };
    let server = Server::start_with(service, &place, &listening);
    let server = server.map_err(|error| Failure::Input { input: place, error })?;
    announce(&server, tls.as_ref(), out)?;
    while !interrupt.requested() {
        thread::sleep(PATIENCE);
    }
    server.stop()?;
    Ok(Exit::Fine)
}

fn identity(args: &ServeArgs) -> Result<Option<TlsIdentity>, Failure> {
    let identity = args.tls.as_ref().map(|identity| match identity {
        IdentityArg::SelfSigned => TlsIdentity::self_signed(args.data.join("tls"), &args.host),
        IdentityArg::Files { certificate, key } => TlsIdentity::from_pem_files(certificate, key),
    });
    identity.transpose().map_err(|error| match error {
        TlsError::Io { path, source } => Failure::Input { input: path.display().to_string(), error: source },
        other => Failure::Usage(other.to_string()),
    })
}

fn announce(server: &Server, tls: Option<&TlsIdentity>, out: &mut Output) -> Result<(), Failure> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let listening = Listening {
        address: format!("{scheme}://{}", server.address()),
        certificate: tls.map(|identity| identity.certificate.display().to_string()),
        health: server.health_address().map(|address| format!("http://{address}")),
    };
    if out.is_json() {
        out.value(&listening)?;
    } else {
        out.line(&listening.address)?;
        if let Some(certificate) = &listening.certificate {
            out.line(format!("certificate: {certificate}"))?;
        }
        if let Some(health) = &listening.health {
            out.line(format!("health: {health}"))?;
        }
    }
    out.flush() // whoever started it waits for this
}

fn failure(error: OpenError) -> Failure {
    match error {
        OpenError::Stream(error) => Failure::Stream(error),
        OpenError::Io { path, source } => Failure::Input { input: path.display().to_string(), error: source },
        OpenError::Option(_) => Failure::Usage(error.to_string()),
        other => Failure::Mismatch(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    #[test]
    fn a_secret_is_in_no_debug_text() {
        let line = Line::parse_from(["serve", "--data", "x", "--credentials", "me:hidden"]);
        let credentials = line.args.credentials.iter().map(|SecretArg(text)| parse_credentials(text));
        let credentials = credentials.collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(credentials[0].secret_access_key, "hidden");
        let failure = parse_credentials("hidden").unwrap_err();
        for text in [format!("{line:?}"), format!("{credentials:?}"), format!("{failure:?} {failure}")] {
            assert!(!text.contains("hidden"), "{text}");
        }
    }
}
