//! Clients come and go: they attach, resume, take over, drain and crash.

use rand::RngExt;
use turnwire::engine::Opening;
use turnwire::engine::session::{Credit, Delivery};
use turnwire::engine::terms::{Resume, Selector, Terms};
use turnwire::id::ChannelId;

use crate::client::{Role, Stream};
use crate::world::{PLENTY, World};

impl World {
    pub(crate) async fn attach(&mut self) {
        let index = self.random.random_range(0..self.clients.len());
        // One that has a stream takes over from itself, now and then.
        if self.clients[index].stream.is_some() && self.random.random_bool(0.8) {
            return;
        }
        let credit = match self.random.random_range(0..4) {
            0 => Credit::default(),
            1 => Credit {
                deliveries: self.random.random_range(1..4),
                bytes: self.random.random_range(100..600),
            },
            _ => PLENTY,
        };
        let choosy = self.random.random_bool(0.2);
        let resumes = self.random.random_bool(0.7);
        let window = self.random.random_range(1..=5);
        self.open(index, credit, window, choosy, resumes).await;
    }

    pub(crate) async fn open(
        &mut self,
        index: usize,
        credit: Credit,
        window: usize,
        choosy: bool,
        resumes: bool,
    ) {
        let client = &mut self.clients[index];
        client.read(self.random.random_range(0..9));
        let old = client.lose_stream();
        let known = client.session.clone();
        let held: Vec<_> = client.holds.iter().map(|held| held.id).collect();
        // Adapters have neither selectors nor sessions that outlive their streams.
        let is_bot = matches!(client.role, Role::Bot(_));
        let (choosy, resumes) = (choosy && is_bot, resumes && is_bot);
        let mut terms = Terms::new(client.instance, credit);
        terms.window = window;
        if choosy {
            self.choosy = true;
            terms.selectors = vec![Selector {
                channels: Vec::new(),
                types: vec!["message".to_owned()],
            }];
        }
        terms.resume = resumes.then(|| {
            let (session_id, token) = known.unwrap_or_default();
            Resume {
                session_id,
                token,
                held: held.clone(),
                grace: None,
            }
        });
        let attached = match client.role {
            Role::Bot(bot) => self.gateway.engine.attach_bot(&bot.into(), terms).await,
            Role::Adapter(channel) => {
                let channel = ChannelId::from(channel);
                let engine = &self.gateway.engine;
                engine.attach_channel(&channel, terms, None).await
            }
        };
        let Opening {
            link,
            events,
            resumed,
        } = attached.expect("it is let in");
        self.trace.note(format_args!(
            "{} attaches, window {window}, {credit:?}, choosy {choosy}: {} {resumed:?}",
            self.clients[index],
            link.session().number.0
        ));
        let client = &mut self.clients[index];
        let session = link.session();
        client.session = session
            .resume_token()
            .map(|token| (session.id.to_string(), token.to_owned()));
        assert!(
            resumed.lost.iter().all(|lost| held.contains(lost)),
            "what is lost was held"
        );
        let holds = std::mem::take(&mut client.holds);
        match resumed.same {
            true => {
                let lost = |held: &Delivery| resumed.lost.contains(&held.id);
                client.holds = holds.into_iter().filter(|held| !lost(held)).collect();
            }
            // Whoever has not noticed goes on as before.
            false => {
                let is_egress = matches!(client.role, Role::Adapter(_));
                self.zombies.extend(old.map(|old| (old, holds, is_egress)));
            }
        }
        client.stream = Some(Stream::new(link, events, credit, choosy));
    }

    pub(crate) fn lose_a_stream(&mut self) {
        let Some(index) = self.any_client(|_| true) else {
            return;
        };
        let most = self.random.random_range(0..9);
        let client = &mut self.clients[index];
        client.read(most);
        client.lose_stream();
        self.trace
            .note(format_args!("{} loses its stream", self.clients[index]));
    }

    pub(crate) fn crash_a_client(&mut self) {
        let index = self.random.random_range(0..self.clients.len());
        self.clients[index].crash();
        self.trace
            .note(format_args!("{} crashes", self.clients[index]));
    }

    pub(crate) async fn drain_a_session(&mut self) {
        let Some(index) = self.any_client(|_| true) else {
            return;
        };
        if let Some(stream) = &self.clients[index].stream {
            stream.link.drain().await.expect("the engine runs");
        }
        self.trace
            .note(format_args!("{} drains", self.clients[index]));
    }

    pub(crate) async fn grant(&mut self) {
        let Some(index) = self.any_client(|_| true) else {
            return;
        };
        let grant = Credit {
            deliveries: self.random.random_range(0..5),
            bytes: self.random.random_range(0..800),
        };
        if let Some(stream) = &mut self.clients[index].stream {
            stream.granted.deliveries += grant.deliveries;
            stream.granted.bytes += grant.bytes;
            stream.link.grant(grant).await.expect("the engine runs");
        }
        self.trace
            .note(format_args!("{} grants {grant:?}", self.clients[index]));
    }
}
