//! Who may do what.
//!
//! istio: "If there are any DENY policies that match the request, deny it. If there are no ALLOW policies for the workload,
//! allow it. If any of the ALLOW policies match, allow it. Deny it." Before these, a policy that is withheld or missing denies.
//!
//! A caller without a verified identity matches no principal, namespace or account, and so satisfies the `not` forms.
//! On a connection whose requests are not seen, fields of HTTP never hold for ALLOW, and always hold for DENY (istio:
//! "Authorization for TCP traffic"): a DENY rule about paths denies what may be such a path.
//! Invariant: judging a connection first and then each request ([`precheck`], [`Precheck::request`]) gives what
//! [`authorize`] gives. Deciding allocates nothing unless it denies or traces.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use leno_model::{ConditionKey, Origin, PolicyAction, SpiffeId};
use smallvec::SmallVec;

use crate::{
    facts::{ConnectionFacts, RequestFacts, host_of},
    matching::{PathTest, Text},
    policy::{
        CompiledPolicy, ConditionTest, Field, OperationTest, PolicySet, RuleTest, SourceTest, ValueTest,
    },
    trace::Trace,
};

/// The decision.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Permitted.
    Allow {
        /// Why.
        by: AllowReason,
    },
    /// Refused.
    Deny {
        /// Why.
        by: DenyReason,
    },
}

impl Verdict {
    /// Whether it permits.
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// A rule of a policy. Cheap to make: it shares the policy.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleRef {
    /// The policy.
    pub policy: Arc<CompiledPolicy>,
    /// Which of its rules.
    pub rule: usize,
}

impl RuleRef {
    /// The rule in the user's YAML.
    pub fn origin(&self) -> &Origin {
        self.policy.rules.get(self.rule).map_or(&self.policy.policy.origin, |rule| &rule.origin)
    }
}

/// Why something is permitted.
#[derive(Clone, PartialEq, Debug)]
pub enum AllowReason {
    /// No ALLOW policy selects the workload.
    NoAllowPolicy,
    /// This rule matches.
    Rule(RuleRef),
}

/// Why something is refused.
#[derive(Clone, PartialEq, Debug)]
pub enum DenyReason {
    /// A policy that cannot be honoured.
    Withheld(Arc<CompiledPolicy>),
    /// A policy that selects the workload and has not come.
    Missing(Arc<str>),
    /// This rule of a DENY policy matches.
    Rule(RuleRef),
    /// There are ALLOW policies and none matches; the rule that came nearest, and what of it did not hold.
    NothingAllows(Option<NearMiss>),
}

/// The ALLOW rule that came nearest to a match.
#[derive(Clone, PartialEq, Debug)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// What did not hold: `from`, `to` or `when`, and which field of it.
    pub field: &'static str,
    /// That part in the user's YAML.
    pub origin: Origin,
}

impl std::fmt::Display for DenyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Withheld(policy) => {
                let why = policy.withheld.as_deref().unwrap_or("it is withheld");
                write!(f, "{} cannot be honoured and denies all it selects: {why}", policy.policy.origin)
            }
            Self::Missing(id) => {
                write!(f, "AuthorizationPolicy {id} selects the workload and has not arrived")
            }
            Self::Rule(rule) => write!(f, "{} (DENY) matches", rule.origin()),
            Self::NothingAllows(None) => f.write_str("there are ALLOW policies, and none has a rule"),
            Self::NothingAllows(Some(near)) => {
                write!(f, "no ALLOW policy matches; nearest is {}: {} does not hold", near.origin, near.field)
            }
        }
    }
}

impl DenyReason {
    /// The policy's `namespace/name`; for a refusal because nothing allows, that of the nearest rule.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Withheld(policy) => Some(&policy.policy.id),
            Self::Missing(id) => Some(id),
            Self::Rule(rule) => Some(&rule.policy.policy.id),
            Self::NothingAllows(near) => near.as_ref().map(|near| &*near.rule.policy.policy.id),
        }
    }

    /// The index of the rule, where one is to blame.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::Withheld(_) | Self::Missing(_) => None,
            Self::Rule(rule) => Some(rule.rule),
            Self::NothingAllows(near) => near.as_ref().map(|near| near.rule.rule),
        }
    }

    /// What to cite.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Withheld(policy) => Some(&policy.policy.origin),
            Self::Missing(_) => None,
            Self::Rule(rule) => Some(rule.origin()),
            Self::NothingAllows(near) => near.as_ref().map(|near| &near.origin),
        }
    }
}

/// Judges a request, or (`request` is `None`) a connection whose requests are not seen.
pub fn authorize(
    policies: &PolicySet,
    connection: &ConnectionFacts<'_>,
    request: Option<&RequestFacts<'_>>,
    trace: &mut impl Trace,
) -> Verdict {
    if let Some(by) = unconditional(policies) {
        return Verdict::Deny { by };
    }
    let facts = match request {
        Some(request) => Facts { connection, seen: Seen::Request(request) },
        None => Facts { connection, seen: Seen::Bytes },
    };
    let mut find = |policies: &[Arc<CompiledPolicy>]| {
        let found = all_rules(policies).find(|(policy, rule)| facts.matches(policy, *rule, trace));
        found.map(|(policy, rule)| RuleRef { policy: policy.clone(), rule })
    };
    if let Some(rule) = find(&policies.deny) {
        return Verdict::Deny { by: DenyReason::Rule(rule) };
    }
    if policies.allow.is_empty() {
        return Verdict::Allow { by: AllowReason::NoAllowPolicy };
    }
    match find(&policies.allow) {
        Some(rule) => Verdict::Allow { by: AllowReason::Rule(rule) },
        None => Verdict::Deny { by: DenyReason::NothingAllows(facts.near_miss(policies)) },
    }
}

/// What is fixed for a whole connection of HTTP.
#[derive(Clone, PartialEq, Debug)]
pub enum Precheck {
    /// Every request gets this verdict.
    Fixed(Verdict),
    /// Requests are judged by the rules that the connection leaves open.
    PerRequest(OpenRules),
}

/// The rules that may still match on a connection: (index of the policy, index of the rule).
#[derive(Clone, PartialEq, Debug)]
pub struct OpenRules {
    deny: SmallVec<[(u32, u32); 4]>,
    allow: SmallVec<[(u32, u32); 4]>,
}

/// Judges what is fixed for a connection of HTTP, so that only the rest is left for each request.
pub fn precheck(policies: &PolicySet, connection: &ConnectionFacts<'_>) -> Precheck {
    if let Some(by) = unconditional(policies) {
        return Precheck::Fixed(Verdict::Deny { by });
    }
    let facts = Facts { connection, seen: Seen::NotYet };
    let open = |policies: &[Arc<CompiledPolicy>]| -> SmallVec<[(u32, u32); 4]> {
        let indexes = policies.iter().enumerate().flat_map(|(at, policy)| {
            policy.rules.iter().enumerate().map(move |(rule, test)| (at as u32, rule as u32, test))
        });
        indexes.filter(|(_, _, test)| facts.rule(test).is_ok()).map(|(at, rule, _)| (at, rule)).collect()
    };
    let (deny, allow) = (open(&policies.deny), open(&policies.allow));
    let decided = |open: &[(u32, u32)], policies: &[Arc<CompiledPolicy>]| {
        let &(at, rule) = open.first()?;
        let policy = policies.get(at as usize)?;
        let rule = rule as usize;
        let fixed = policy.rules.get(rule).is_some_and(|test| !needs_request(test));
        fixed.then(|| RuleRef { policy: policy.clone(), rule })
    };
    if let Some(rule) = decided(&deny, &policies.deny) {
        return Precheck::Fixed(Verdict::Deny { by: DenyReason::Rule(rule) });
    }
    if deny.is_empty() {
        if policies.allow.is_empty() {
            return Precheck::Fixed(Verdict::Allow { by: AllowReason::NoAllowPolicy });
        }
        if let Some(rule) = decided(&allow, &policies.allow) {
            return Precheck::Fixed(Verdict::Allow { by: AllowReason::Rule(rule) });
        }
        if allow.is_empty() {
            let by = DenyReason::NothingAllows(facts.near_miss(policies));
            return Precheck::Fixed(Verdict::Deny { by });
        }
    }
    Precheck::PerRequest(OpenRules { deny, allow })
}

impl Precheck {
    /// Judges one request of the connection. The same policies and connection as given to [`precheck`].
    pub fn request(
        &self,
        policies: &PolicySet,
        connection: &ConnectionFacts<'_>,
        request: &RequestFacts<'_>,
        trace: &mut impl Trace,
    ) -> Verdict {
        let open = match self {
            Self::Fixed(verdict) => return verdict.clone(),
            Self::PerRequest(open) => open,
        };
        let facts = Facts { connection, seen: Seen::Request(request) };
        let mut find = |open: &[(u32, u32)], policies: &[Arc<CompiledPolicy>]| {
            open.iter().find_map(|&(at, rule)| {
                let policy = policies.get(at as usize)?;
                let rule = rule as usize;
                facts.matches(policy, rule, trace).then(|| RuleRef { policy: policy.clone(), rule })
            })
        };
        if let Some(rule) = find(&open.deny, &policies.deny) {
            return Verdict::Deny { by: DenyReason::Rule(rule) };
        }
        if policies.allow.is_empty() {
            return Verdict::Allow { by: AllowReason::NoAllowPolicy };
        }
        match find(&open.allow, &policies.allow) {
            Some(rule) => Verdict::Allow { by: AllowReason::Rule(rule) },
            None => Verdict::Deny { by: DenyReason::NothingAllows(facts.near_miss(policies)) },
        }
    }
}

fn unconditional(policies: &PolicySet) -> Option<DenyReason> {
    let withheld = policies.withheld.first().map(|policy| DenyReason::Withheld(policy.clone()));
    withheld.or_else(|| policies.missing.first().map(|id| DenyReason::Missing(id.clone())))
}

fn all_rules(policies: &[Arc<CompiledPolicy>]) -> impl Iterator<Item = (&Arc<CompiledPolicy>, usize)> {
    policies.iter().flat_map(|policy| (0..policy.rules.len()).map(move |rule| (policy, rule)))
}

/// Whether a rule looks at anything that may differ between the requests of a connection.
fn needs_request(rule: &RuleTest) -> bool {
    let of_operation =
        |to: &OperationTest| !(to.hosts.is_empty() && to.methods.is_empty() && to.paths.is_empty());
    let of_condition =
        |when: &ConditionTest| matches!(when.key, ConditionKey::RequestHeader(_) | ConditionKey::RemoteIp);
    rule.from.iter().any(|source| !source.remote_ips.is_empty())
        || rule.to.iter().any(of_operation)
        || rule.when.iter().any(of_condition)
}

/// How much of a connection's content is seen.
#[derive(Clone, Copy)]
enum Seen<'f> {
    /// A request.
    Request(&'f RequestFacts<'f>),
    /// A connection of HTTP, before its requests: what a request may yet satisfy holds.
    NotYet,
    /// Opaque bytes.
    Bytes,
}

#[derive(Clone, Copy)]
struct Facts<'f> {
    connection: &'f ConnectionFacts<'f>,
    seen: Seen<'f>,
}

/// What of a rule did not hold.
struct Failed<'p> {
    /// How many parts before it held.
    held: u8,
    field: &'static str,
    origin: &'p Origin,
}

impl<'f> Facts<'f> {
    fn matches(&self, policy: &CompiledPolicy, rule: usize, trace: &mut impl Trace) -> bool {
        let Some(test) = policy.rules.get(rule) else { return false };
        let (held, field) = match self.rule_for(test, policy.policy.action) {
            Ok(()) => (true, None),
            Err(failed) => (false, Some(failed.field)),
        };
        trace.step(held, &test.origin, || match field {
            None => format!("{:?} rule {rule} of {} matches", policy.policy.action, policy.policy.id),
            Some(field) => {
                let id = &policy.policy.id;
                format!("{:?} rule {rule} of {id} does not match: {field}", policy.policy.action)
            }
        });
        held
    }

    fn rule<'p>(&self, rule: &'p RuleTest) -> Result<(), Failed<'p>> {
        self.rule_for(rule, PolicyAction::Allow)
    }

    fn rule_for<'p>(&self, rule: &'p RuleTest, action: PolicyAction) -> Result<(), Failed<'p>> {
        // On opaque bytes a field of HTTP holds for DENY only.
        let unseen = action == PolicyAction::Deny;
        any_of(&rule.from, |source| self.source(source)).map_err(|(field, origin)| Failed {
            held: 0,
            field,
            origin,
        })?;
        any_of(&rule.to, |to| self.operation(to, unseen)).map_err(|(field, origin)| Failed {
            held: 1,
            field,
            origin,
        })?;
        match rule.when.iter().find(|when| !self.condition(when, unseen)) {
            Some(when) => Err(Failed { held: 2, field: "when", origin: &when.origin }),
            None => Ok(()),
        }
    }

    /// The first field of a source that does not hold.
    fn source<'p>(&self, source: &'p SourceTest) -> Result<(), (&'static str, &'p Origin)> {
        let peer = self.connection.peer;
        let principal = peer.map(|peer| peer.principal().as_bytes());
        let namespace = peer.and_then(SpiffeId::namespace).map(str::as_bytes);
        let failed = if !of_text(&source.principals, principal) {
            "from.source.principals"
        } else if !of_text(&source.namespaces, namespace) {
            "from.source.namespaces"
        } else if !source.accounts.is_empty() && !of_account(&source.accounts, peer) {
            "from.source.serviceAccounts"
        } else if !source.ips.holds(|block| block.contains(self.connection.source_ip)) {
            "from.source.ipBlocks"
        } else if !self.remote_ip().is_none_or(|ip| source.remote_ips.holds(|block| block.contains(ip))) {
            "from.source.remoteIpBlocks"
        } else {
            return Ok(());
        };
        Err((failed, &source.origin))
    }

    /// The original client's address; `None` when a request may yet say another one.
    fn remote_ip(&self) -> Option<IpAddr> {
        match self.seen {
            Seen::Request(request) => Some(request.remote_ip.unwrap_or(self.connection.remote_ip)),
            Seen::NotYet => None,
            Seen::Bytes => Some(self.connection.remote_ip),
        }
    }

    fn operation<'p>(&self, to: &'p OperationTest, unseen: bool) -> Result<(), (&'static str, &'p Origin)> {
        let failed = if !to.ports.holds(|port| *port == self.connection.destination_port) {
            "to.operation.ports"
        } else {
            match self.seen {
                Seen::NotYet => return Ok(()),
                Seen::Bytes => {
                    let is_http = !(to.hosts.is_empty() && to.methods.is_empty() && to.paths.is_empty());
                    match is_http && !unseen {
                        true => "to.operation looks at HTTP, and this is TCP",
                        false => return Ok(()),
                    }
                }
                Seen::Request(request) => match http_mismatch(to, request) {
                    Some(field) => field,
                    None => return Ok(()),
                },
            }
        };
        Err((failed, &to.origin))
    }

    fn condition(&self, when: &ConditionTest, unseen: bool) -> bool {
        let peer = self.connection.peer;
        let text = |value: Option<&str>| of_value_text(&when.values, value.map(str::as_bytes));
        let ip = |address: IpAddr| {
            when.values.holds(|value| matches!(value, ValueTest::Ip(block) if block.contains(address)))
        };
        match &when.key {
            ConditionKey::RequestHeader(name) => match self.seen {
                Seen::Request(request) => {
                    let value: Option<Cow<'_, [u8]>> = request.header(name);
                    of_value_text(&when.values, value.as_deref())
                }
                Seen::NotYet => true,
                Seen::Bytes => unseen,
            },
            ConditionKey::SourceIp => ip(self.connection.source_ip),
            ConditionKey::RemoteIp => self.remote_ip().is_none_or(ip),
            ConditionKey::DestinationIp => ip(self.connection.destination_ip),
            ConditionKey::DestinationPort => {
                let port = self.connection.destination_port;
                when.values.holds(|value| matches!(value, ValueTest::Port(wanted) if *wanted == port))
            }
            ConditionKey::SourceNamespace => text(peer.and_then(SpiffeId::namespace)),
            ConditionKey::SourceTrustDomain => text(peer.map(SpiffeId::trust_domain)),
            ConditionKey::SourcePrincipal => text(peer.map(SpiffeId::principal)),
            ConditionKey::ConnectionSni => text(self.connection.sni),
            ConditionKey::SourceServiceAccount => match account(peer) {
                Some(account) => of_value_text(&when.values, Some(&account)),
                None => of_value_text(&when.values, None),
            },
        }
    }

    /// The ALLOW rule of which most parts hold.
    fn near_miss(&self, policies: &PolicySet) -> Option<NearMiss> {
        let failed = all_rules(&policies.allow).filter_map(|(policy, rule)| {
            let failed = self.rule_for(policy.rules.get(rule)?, PolicyAction::Allow).err()?;
            Some((policy, rule, failed))
        });
        // The first of equally near ones.
        let nearest = failed.reduce(|best, next| if next.2.held > best.2.held { next } else { best });
        nearest.map(|(policy, rule, failed)| NearMiss {
            rule: RuleRef { policy: policy.clone(), rule },
            field: failed.field,
            origin: failed.origin.clone(),
        })
    }
}

/// Whether any of a list holds (an empty list does); else why the last did not.
fn any_of<'p, T, E>(list: &'p [T], check: impl Fn(&'p T) -> Result<(), E>) -> Result<(), E> {
    let mut failed = None;
    for item in list {
        match check(item) {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// A value that is absent matches nothing.
fn of_text(field: &Field<Text>, value: Option<&[u8]>) -> bool {
    field.holds(|text| value.is_some_and(|value| text.is_match(value)))
}

fn of_value_text(field: &Field<ValueTest>, value: Option<&[u8]>) -> bool {
    field.holds(|test| matches!((test, value), (ValueTest::Text(text), Some(value)) if text.is_match(value)))
}

type AccountName = SmallVec<[u8; 128]>;

/// `namespace/name` of the peer's service account.
fn account(peer: Option<&SpiffeId>) -> Option<AccountName> {
    let peer = peer?;
    let mut name = AccountName::from_slice(peer.namespace()?.as_bytes());
    name.push(b'/');
    name.extend_from_slice(peer.service_account()?.as_bytes());
    Some(name)
}

fn of_account(field: &Field<Text>, peer: Option<&SpiffeId>) -> bool {
    match account(peer) {
        Some(name) => of_text(field, Some(&name)),
        None => of_text(field, None),
    }
}

fn http_mismatch(to: &OperationTest, request: &RequestFacts<'_>) -> Option<&'static str> {
    // A host is named with or without its port; a rule for the host means both.
    let authority = request.authority.as_bytes();
    let host = host_of(request.authority).as_bytes();
    let is_host = |text: &Text| text.is_match_ignoring_case(authority) || text.is_match_ignoring_case(host);
    if !to.hosts.holds(is_host) {
        Some("to.operation.hosts")
    } else if !to.methods.holds(|text| text.is_match(request.method.as_bytes())) {
        Some("to.operation.methods")
    } else if !to.paths.holds(|path: &PathTest| path.is_match(request.path, false)) {
        Some("to.operation.paths")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
