//! `sign`: a certificate for a request, after it was said in words what it allows, and asked where that is more than the signer has.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::certificate::chain::judge;
use fulmar_core::name::Name;
use fulmar_core::policy::Policy;
use fulmar_core::wire::{self, Command, PolicyCommand};

use super::ask::consent;
use super::server::record;
use super::{Context, Holder};
use crate::error::Failure;
use crate::output::text::{plain, timestamp};
use crate::pki::encode::{self, Use};
use crate::pki::files;
use crate::pki::issue::{self, DAY_S, Grant, Issuer, SKEW_S};
use crate::pki::read::Request;
use crate::pki::words;

/// Days that a command is valid, and a delegation.
const COMMAND_DAYS: u32 = 1;
const DELEGATION_DAYS: u32 = 365;

/// The command line of `sign`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmp_ca sign shop.req --folder ca
  vmmp_ca sign web.req --cert shop.pem --key shop.key

Says what the request asks for, and asks before it signs.
Without a terminal --yes has to be there, and --exceed where a policy allows more
than the one of the signer.")]
pub(super) struct Sign {
    /// The request
    request: PathBuf,
    #[command(flatten)]
    holder: Holder,
    /// The new certificate with those above it, which must not be there yet (default: REQUEST with the ending .pem)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Days that it is valid (default: 1, of a delegation 365)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Sign a policy although it allows more than the one of the signer
    #[arg(long)]
    exceed: bool,
}

impl Sign {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let output = self.output.clone().unwrap_or_else(|| self.request.with_extension("pem"));
        // What is no request is said first.
        let request = Request::read(&self.request)?;
        files::check_absent(&output)?;
        let Some(command) = request.command() else { return Err(files::wrong(&self.request, "asks for nothing")) };
        let issuer = self.holder.issuer()?;
        issuer.check_time(context.now_unix_s)?;
        let delegated = match command {
            Command::Policy(PolicyCommand::Add(policy)) => Some(policy),
            _ => None,
        };
        let (purpose, days) = match delegated {
            Some(_) => (Use::Authority, self.days.unwrap_or(DELEGATION_DAYS)),
            None => (Use::Client, self.days.unwrap_or(COMMAND_DAYS)),
        };
        let subject = encode::common_name(request.common_name.as_deref().unwrap_or("."));
        let chain = issuer.sign(&Grant {
            subject: &subject,
            key: &request.key,
            purpose,
            carries: Some(&request.carries),
            not_before_unix_s: context.now_unix_s.saturating_sub(SKEW_S),
            not_after_unix_s: context.now_unix_s.saturating_add(i64::from(days) * DAY_S),
        })?;
        let name = self.name(&chain, delegated.is_some(), &request, &issuer)?;
        context.say(&format!("{name} {}", words::command(&command)))?;
        if let Some(policy) = &delegated {
            self.check_policy(context, policy, &issuer)?;
        }
        if !self.yes {
            let end = issuer.not_after_unix_s().min(context.now_unix_s.saturating_add(i64::from(days) * DAY_S));
            consent(context, &format!("Sign this until {}?", timestamp(end.saturating_mul(1000))), "--yes")?;
        }
        // Of two that sign to one file only one records what it has signed.
        files::reserve(&output)?;
        let recorded = record(self.holder.folder(), &issuer, &chain);
        let written = recorded.and_then(|cert| {
            files::replace(&output, issue::pem(&chain).as_bytes(), 0o644)?;
            Ok(cert)
        });
        let cert = written.inspect_err(|_| files::remove(&output))?;
        let end = timestamp(cert.not_after_unix_s.saturating_mul(1000));
        context.say(&format!("{}: signed, valid until {end}", output.display()))
    }

    /// Of whom the certificate is, as a server will see it. What a server would refuse is not signed.
    fn name(&self, chain: &[Vec<u8>], delegated: bool, request: &Request, issuer: &Issuer) -> Result<Name, Failure> {
        let wrong = |what: String| files::wrong(&self.request, &what);
        if delegated {
            let label = request.common_name.as_deref().unwrap_or_default();
            let path = issuer.authority.path.join_path(label);
            return path.map_err(|error| wrong(format!("the label '{}': {error}", plain(label.as_bytes()))));
        }
        let above: Vec<&[u8]> = chain.iter().skip(1).map(Vec::as_slice).collect();
        let judged = judge(chain.first().map(Vec::as_slice).unwrap_or_default(), &above);
        judged.map(|chain| chain.name).map_err(|refused| wrong(format!("no server would take it: {refused}")))
    }

    /// Asks before a policy is signed that allows more than the one above it.
    fn check_policy(
        &self,
        context: &mut Context<'_>,
        asked: &wire::Policy<'_>,
        issuer: &Issuer,
    ) -> Result<(), Failure> {
        let wrong = |what: &str| files::wrong(&self.request, what);
        let asked = Policy::try_from(asked).map_err(|_| wrong("asks for a policy that cannot be"))?;
        let above = issuer.authority.policy_at.and_then(|at| issuer.chain.get(at)).and_then(|cert| cert.policy());
        let Some(above) = above else { return Ok(()) };
        let above = Policy::try_from(&above).map_err(|_| wrong("is signed by one whose policy cannot be"))?;
        let Err(exceeds) = above.contains(&asked) else { return Ok(()) };
        let text = format!("this is more than {} has: its policy {exceeds}", issuer.authority.path);
        context.say(&text)?;
        if self.exceed {
            return Ok(());
        }
        consent(context, "No server will take it before the policy above is larger. Go on?", "--exceed")
    }
}
