//! Authorization policies, compiled and flattened for one workload.
//!
//! Invariant: a policy that cannot be compiled, is withheld, or is named and not there denies whatever it selects.

use std::{collections::BTreeMap, sync::Arc};

use leno_model::{
    AuthorizationPolicy, Condition, ConditionKey, ConditionValue, IpBlock, Operation, Origin, PathMatch,
    PolicyAction, Port, Source, StringMatch,
};

use crate::matching::{BadPattern, PathTest, Text};

/// One compiled policy.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPolicy {
    /// The policy.
    pub policy: Arc<AuthorizationPolicy>,
    /// Set when it denies everything it selects.
    pub withheld: Option<Arc<str>>,
    pub(crate) rules: Vec<RuleTest>,
}

impl CompiledPolicy {
    /// Compiles a policy; when that fails it is withheld, and the reason is given.
    pub(crate) fn compile(policy: Arc<AuthorizationPolicy>) -> (Self, Option<String>) {
        let compiled: Result<Vec<RuleTest>, BadPattern> =
            policy.rules.iter().map(RuleTest::compile).collect();
        match compiled {
            Ok(rules) => (Self { withheld: policy.withheld.clone(), policy, rules }, None),
            Err(problem) => {
                let why = problem.to_string();
                (Self { policy, withheld: Some(why.as_str().into()), rules: Vec::new() }, Some(why))
            }
        }
    }
}

/// The policies of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    /// Ids of policies that select the workload and are not here.
    pub(crate) missing: Vec<Arc<str>>,
    pub(crate) withheld: Vec<Arc<CompiledPolicy>>,
    pub(crate) deny: Vec<Arc<CompiledPolicy>>,
    pub(crate) allow: Vec<Arc<CompiledPolicy>>,
}

impl PolicySet {
    /// Flattens the policies with these ids: withheld ones, DENY, ALLOW, each in the order of ids.
    pub fn build(ids: &[Arc<str>], policies: &BTreeMap<Arc<str>, Arc<CompiledPolicy>>) -> Self {
        let mut set = Self::default();
        for id in ids {
            match policies.get(id) {
                None => set.missing.push(id.clone()),
                Some(policy) => set.add(policy.clone()),
            }
        }
        set
    }

    /// The set of some policies, for tools and tests.
    pub fn of(policies: impl IntoIterator<Item = Arc<AuthorizationPolicy>>) -> Self {
        let mut set = Self::default();
        for policy in policies {
            set.add(Arc::new(CompiledPolicy::compile(policy).0));
        }
        set
    }

    fn add(&mut self, policy: Arc<CompiledPolicy>) {
        match (&policy.withheld, policy.policy.action) {
            (Some(_), _) => self.withheld.push(policy),
            (None, PolicyAction::Deny) => self.deny.push(policy),
            (None, PolicyAction::Allow) => self.allow.push(policy),
        }
    }

    /// Whether there is no policy at all.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.withheld.is_empty() && self.deny.is_empty() && self.allow.is_empty()
    }
}

/// Values of a field, and values that it must not have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field<T> {
    pub(crate) any: Vec<T>,
    pub(crate) none: Vec<T>,
}

impl<T> Field<T> {
    /// One of `any` (or there are none), and none of `none`.
    pub(crate) fn holds(&self, is_match: impl Fn(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&is_match)) && !self.none.iter().any(is_match)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleTest {
    pub(crate) from: Vec<SourceTest>,
    pub(crate) to: Vec<OperationTest>,
    pub(crate) when: Vec<ConditionTest>,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceTest {
    pub(crate) principals: Field<Text>,
    pub(crate) namespaces: Field<Text>,
    pub(crate) accounts: Field<Text>,
    pub(crate) ips: Field<IpBlock>,
    pub(crate) remote_ips: Field<IpBlock>,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OperationTest {
    pub(crate) hosts: Field<Text>,
    pub(crate) ports: Field<Port>,
    pub(crate) methods: Field<Text>,
    pub(crate) paths: Field<PathTest>,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ValueTest {
    Text(Text),
    Ip(IpBlock),
    Port(Port),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConditionTest {
    pub(crate) key: ConditionKey,
    pub(crate) values: Field<ValueTest>,
    pub(crate) origin: Origin,
}

fn texts(any: &[StringMatch], none: &[StringMatch]) -> Result<Field<Text>, BadPattern> {
    Ok(Field { any: Text::compile_all(any)?, none: Text::compile_all(none)? })
}

fn plain<T: Clone>(any: &[T], none: &[T]) -> Field<T> {
    Field { any: any.to_vec(), none: none.to_vec() }
}

impl RuleTest {
    fn compile(rule: &leno_model::PolicyRule) -> Result<Self, BadPattern> {
        let leno_model::PolicyRule { from, to, when, origin } = rule;
        Ok(Self {
            from: from.iter().map(SourceTest::compile).collect::<Result<_, _>>()?,
            to: to.iter().map(OperationTest::compile).collect::<Result<_, _>>()?,
            when: when.iter().map(ConditionTest::compile).collect::<Result<_, _>>()?,
            origin: origin.clone(),
        })
    }
}

impl SourceTest {
    fn compile(source: &Source) -> Result<Self, BadPattern> {
        let Source {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
            origin,
        } = source;
        Ok(Self {
            principals: texts(principals, not_principals)?,
            namespaces: texts(namespaces, not_namespaces)?,
            accounts: texts(service_accounts, not_service_accounts)?,
            ips: plain(ip_blocks, not_ip_blocks),
            remote_ips: plain(remote_ip_blocks, not_remote_ip_blocks),
            origin: origin.clone(),
        })
    }
}

impl OperationTest {
    fn compile(operation: &Operation) -> Result<Self, BadPattern> {
        let Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths, origin } =
            operation;
        let path_tests =
            |paths: &[PathMatch]| paths.iter().map(PathTest::compile).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            hosts: texts(hosts, not_hosts)?,
            ports: plain(ports, not_ports),
            methods: texts(methods, not_methods)?,
            paths: Field { any: path_tests(paths)?, none: path_tests(not_paths)? },
            origin: origin.clone(),
        })
    }
}

impl ConditionTest {
    fn compile(condition: &Condition) -> Result<Self, BadPattern> {
        let Condition { key, values, not_values, origin } = condition;
        let test = |value: &ConditionValue| {
            Ok(match value {
                ConditionValue::Text(text) => ValueTest::Text(Text::compile(text)?),
                ConditionValue::Ip(block) => ValueTest::Ip(*block),
                ConditionValue::Port(port) => ValueTest::Port(*port),
            })
        };
        let tests =
            |values: &[ConditionValue]| values.iter().map(test).collect::<Result<Vec<_>, BadPattern>>();
        Ok(Self {
            key: key.clone(),
            values: Field { any: tests(values)?, none: tests(not_values)? },
            origin: origin.clone(),
        })
    }
}
