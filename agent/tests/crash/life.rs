//! One state folder and the agents that live and die over it.

use nix::sys::signal::Signal;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use std::os::unix::process::ExitStatusExt as _;

use crate::agent::{Agent, Failure, Home};
use crate::check::look;
use crate::model::{Ground, Model, Op};

/// More requests than any point is away.
const MOST: usize = 1000;
/// Refusals that a request may meet which was right when it was thought of.
const FAIR: [&str; 9] = [
    "AddressLimitExceeded",
    "AttachmentLimitExceeded",
    "IncorrectInstanceState",
    "IncorrectState",
    "InvalidIPAddress.InUse",
    "InvalidNetworkInterface.InUse",
    "InvalidParameterValue",
    "Resource.AlreadyAssociated",
    "RouteTableLimitExceeded",
];

/// The agent has died.
pub(crate) struct Died;

pub(crate) struct World {
    pub(crate) home: Home,
    rng: StdRng,
    /// What has been answered.
    model: Model,
    /// What was asked and not answered.
    unsure: Option<Op>,
    /// Every answered request with a token, and what it had made.
    tokens: Vec<(Op, Vec<String>)>,
    ground: Option<Ground>,
    /// Whether terminated instances are forgotten at once.
    forgetful: bool,
}

impl World {
    pub(crate) fn new(rng: StdRng, forgetful: bool) -> Self {
        Self {
            home: Home::new(),
            rng,
            model: Model::default(),
            unsure: None,
            tokens: Vec::new(),
            ground: None,
            forgetful,
        }
    }

    fn environment<'a>(&self, fault: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let mut all: Vec<_> = fault
            .map(|fault| ("CUMULET_FAULT", fault))
            .into_iter()
            .collect();
        if self.forgetful {
            all.push(("CUMULET_FAULT_SHOWN", "100"));
        }
        all
    }

    /// An agent lives until it dies of its fault; what its predecessor had promised is looked at first.
    pub(crate) fn die_of(&mut self, fault: &str) {
        let Some(agent) = self.home.start(&self.environment(Some(fault))) else {
            return;
        };
        let survived =
            self.recover(&agent).is_ok() && (0..MOST).all(|_| self.do_something(&agent).is_ok());
        assert!(
            !survived,
            "after {MOST} requests the agent has not come to {fault}"
        );
        let status = agent.ended();
        let killed = Some(Signal::SIGKILL as i32);
        assert_eq!(
            status.signal(),
            killed,
            "it ended with {status}: {}",
            self.home.said()
        );
    }

    /// An agent lives and ends well, twice; everything is as it was promised, and nothing is left of those that died.
    pub(crate) fn live_on(mut self) {
        let agent = self.home.serve(&self.environment(None));
        let alive = "nobody kills this one";
        assert!(
            self.recover(&agent).is_ok(),
            "{alive}: {}",
            self.home.said()
        );
        self.repeat_all(&agent);
        assert!(
            self.recover(&agent).is_ok(),
            "{alive}: {}",
            self.home.said()
        );
        agent.end();
        let agent = self.home.serve(&self.environment(None));
        assert!(
            self.recover(&agent).is_ok(),
            "{alive}: {}",
            self.home.said()
        );
        agent.end();
        // The log of the database's changes stays beside it, as SQLite has it.
        let known = [
            "amis/lock",
            "cloud.sqlite",
            "cloud.sqlite-shm",
            "cloud.sqlite-wal",
            "credentials.json",
            "imds/identity-certificate.pem",
            "imds/identity-key.pem",
            "imds/token-secret",
            "serve.lock",
        ];
        let files = self.home.files();
        assert!(
            files.iter().all(|file| known.contains(&file.as_str())),
            "left: {files:?}"
        );
        let processes = self.home.processes();
        assert!(processes.is_empty(), "left running: {processes:?}");
    }

    /// Compares what was promised with what is there, once it has come to rest.
    fn recover(&mut self, agent: &Agent) -> Result<(), Died> {
        if self.ground.is_none() {
            self.ground = Some(ground(agent)?);
        }
        if let Some(op) = self.unsure.clone().filter(Op::has_token) {
            // Asked again it is done, and done once.
            self.attempt(agent, &op)?;
        }
        let seen = match look(agent, self.forgetful) {
            Ok(seen) => seen,
            Err(Failure::Lost) => return Err(Died),
            Err(refused) => panic!("{refused:?}"),
        };
        let mut fair = vec![self.model.clone()];
        if let Some(op) = self.unsure.take() {
            let mut done = self.model.clone();
            op.apply(&mut done, None);
            if matches!(op, Op::Allocate) {
                let new = seen
                    .addresses
                    .iter()
                    .find(|(id, _)| !done.addresses.contains_key(*id));
                let new = new.map(|(id, address)| (id.clone(), address.clone()));
                done.addresses.extend(new);
            }
            fair.push(done);
        }
        let is = seen.comparable(self.forgetful);
        let same = |promised: &Model| promised.comparable(self.forgetful) == is;
        assert!(
            fair.iter().any(same),
            "promised: {fair:#?}\nthere is: {seen:#?}"
        );
        self.model = seen;
        Ok(())
    }

    /// Every token that was used is used again: nothing is made anew.
    fn repeat_all(&mut self, agent: &Agent) {
        for (op, made) in self.tokens.clone() {
            let there = |id: &String| {
                self.model.instances.contains_key(id)
                    || self.model.interfaces.contains_key(id)
                    || self.model.tables.contains(id)
            };
            // What was deleted may be made again.
            if !made.iter().all(there) {
                continue;
            }
            let (action, fields) = op.request(self.ground.as_ref().expect("a ground"));
            let answer = agent.call(action, &fields);
            let answer = answer.unwrap_or_else(|failure| panic!("{op:?} again: {failure:?}"));
            assert_eq!(op.made(&answer), made, "{op:?} again");
        }
    }

    /// Makes a request and notes what it has become.
    fn attempt(&mut self, agent: &Agent, op: &Op) -> Result<(), Died> {
        let (action, fields) = op.request(self.ground.as_ref().expect("a ground"));
        self.unsure = Some(op.clone());
        match agent.call(action, &fields) {
            Ok(answer) => {
                op.apply(&mut self.model, Some(&answer));
                if op.has_token() {
                    self.tokens.push((op.clone(), op.made(&answer)));
                }
            }
            Err(Failure::Lost) => return Err(Died),
            Err(Failure::Refused {
                status,
                code,
                message,
            }) => {
                let fair = FAIR.contains(&code.as_str());
                assert!(
                    fair,
                    "{op:?}: {status} {code}: {message}; {:#?}",
                    self.model
                );
            }
        }
        self.unsure = None;
        Ok(())
    }

    fn do_something(&mut self, agent: &Agent) -> Result<(), Died> {
        let op = self.think();
        self.attempt(agent, &op)
    }

    /// A request that makes sense, most of the time.
    fn think(&mut self) -> Op {
        loop {
            let op = match self.rng.random_range(0..100) {
                0..12 => self.launch(),
                12..24 => self.change("StopInstances", "running"),
                24..38 => self.change("StartInstances", "stopped"),
                38..46 => self.change("RebootInstances", "running"),
                46..56 => self.change("TerminateInstances", ""),
                56..68 => self.tag(),
                68..73 => Some(Op::Allocate),
                73..79 => self.associate(),
                79..82 => self.disassociate(),
                82..85 => self.release(),
                85..89 => Some(Op::MakeInterface {
                    token: self.token(),
                }),
                89..93 => self.attach(),
                93..95 => self.detach(),
                95..98 => self.delete_interface(),
                _ => Some(Op::MakeTable {
                    token: self.token(),
                }),
            };
            if let Some(op) = op {
                return op;
            }
        }
    }

    fn token(&mut self) -> String {
        format!("{:016x}", self.rng.random::<u64>())
    }

    fn launch(&mut self) -> Option<Op> {
        let alive = |state: &str| state != "terminated";
        let alive = self
            .model
            .instances
            .values()
            .filter(|one| alive(&one.state));
        if alive.count() > 12 {
            return None;
        }
        Some(Op::Run {
            token: self.token(),
            count: self.rng.random_range(1..=3),
            keep: self.rng.random_bool(0.3),
        })
    }

    /// Instances in this state, or in any but terminated.
    fn instances(&self, state: &str) -> Vec<String> {
        let fits = |now: &str| now == state || (state.is_empty() && now != "terminated");
        let all = self.model.instances.iter();
        all.filter(|(_, one)| fits(&one.state))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn change(&mut self, action: &'static str, state: &str) -> Option<Op> {
        let all = self.instances(state);
        let count = self.rng.random_range(1..=2);
        let ids: Vec<String> = all.into_iter().choose_multiple(&mut self.rng, count);
        (!ids.is_empty()).then_some(Op::Change { action, ids })
    }

    fn tag(&mut self) -> Option<Op> {
        let model = &self.model;
        // What goes with a terminated instance goes a little later than the answer.
        let mut all: Vec<&String> = model
            .interfaces
            .keys()
            .chain(model.addresses.keys())
            .collect();
        all.extend(model.volumes.keys());
        let alive = self.instances("");
        all.extend(alive.iter());
        let id = (*all.choose(&mut self.rng)?).clone();
        Some(Op::Tag {
            id,
            key: format!("key {}", self.rng.random_range(0..3)),
            value: self.token(),
        })
    }

    fn associate(&mut self) -> Option<Op> {
        let allocation = self.free_address()?;
        let taken = |id: &&String| {
            let mut all = self.model.addresses.values();
            all.any(|one| one.interface.as_ref() == Some(*id))
        };
        let interfaces = self.model.interfaces.keys().filter(|id| !taken(id));
        let interface = interfaces.cloned().choose(&mut self.rng)?;
        Some(Op::Associate {
            allocation,
            interface,
        })
    }

    fn disassociate(&mut self) -> Option<Op> {
        let used = self
            .model
            .addresses
            .iter()
            .filter(|(_, one)| one.interface.is_some());
        let (allocation, address) = used.choose(&mut self.rng)?;
        Some(Op::Disassociate {
            allocation: allocation.clone(),
            ip: address.ip.clone(),
        })
    }

    fn release(&mut self) -> Option<Op> {
        let allocation = self.free_address()?;
        Some(Op::Release { allocation })
    }

    fn free_address(&mut self) -> Option<String> {
        let free = self
            .model
            .addresses
            .iter()
            .filter(|(_, one)| one.interface.is_none());
        free.map(|(id, _)| id.clone()).choose(&mut self.rng)
    }

    fn free_interface(&mut self) -> Option<String> {
        let free = self
            .model
            .interfaces
            .iter()
            .filter(|(_, place)| place.is_none());
        free.map(|(id, _)| id.clone()).choose(&mut self.rng)
    }

    fn attach(&mut self) -> Option<Op> {
        Some(Op::Attach {
            interface: self.free_interface()?,
            instance: self.instances("").into_iter().choose(&mut self.rng)?,
            index: self.rng.random_range(1..4).to_string(),
        })
    }

    fn detach(&mut self) -> Option<Op> {
        let places = self.model.interfaces.iter();
        let second = places.filter_map(|(id, place)| {
            let place = place.as_ref().filter(|place| place.index != "0")?;
            Some((id.clone(), place.attachment.clone()))
        });
        let (interface, attachment) = second.choose(&mut self.rng)?;
        Some(Op::Detach {
            interface,
            attachment,
        })
    }

    fn delete_interface(&mut self) -> Option<Op> {
        let interface = self.free_interface()?;
        Some(Op::DeleteInterface { interface })
    }
}

/// The default VPC and one of its subnets.
fn ground(agent: &Agent) -> Result<Ground, Died> {
    let first = |action: &str, set: &str, name: &str| match agent.call(action, &Vec::new()) {
        Ok(answer) => Ok(answer.items(set)[0].text(name)),
        Err(Failure::Lost) => Err(Died),
        Err(refused) => panic!("{refused:?}"),
    };
    Ok(Ground {
        vpc: first("DescribeVpcs", "vpcSet", "vpcId")?,
        subnet: first("DescribeSubnets", "subnetSet", "subnetId")?,
    })
}
