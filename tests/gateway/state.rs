//! State documents: etags, scopes, pages, rules, and what a bot does with them. Who may do what is in
//! `access`, and that a Commit writes them with its answers in promise 4.

use prost_types::Struct;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use turnwire::proto::v1;
use turnwire_client::bot::{Bot, Reply, Turn, TurnError};
use turnwire_client::{Client, ClientOptions};

use crate::harness::{Gateway, content, name, put, refused, within};

fn bot_scope() -> v1::StateScope {
    v1::StateScope::bot()
}

fn all_scopes() -> [v1::StateScope; 6] {
    [
        v1::StateScope::bot(),
        v1::StateScope::user("web", "ann"),
        v1::StateScope::user("queue", "ann"),
        v1::StateScope::conversation(name("web", "ann")),
        v1::StateScope::conversation_user(name("web", "ann"), "ann"),
        v1::StateScope::conversation_user(name("web", "ann"), "bob"),
    ]
}

#[tokio::test]
async fn a_document_is_as_it_was_written_last_and_outlives_the_gateway() {
    let mut gateway = Gateway::start().await;
    let scope = v1::StateScope::user("web", "ann");
    assert_eq!(gateway.number(&scope, "visits").await, None);
    let first = gateway.puts(put(&scope, "visits", 1.0)).await;
    let second = gateway.puts(put(&scope, "visits", 2.0)).await;
    assert_ne!(first, second);
    gateway.crash().await;
    let document = gateway
        .document(&scope, "visits")
        .await
        .expect("it is there");
    assert_eq!(document.name, "visits");
    assert_eq!(document.content, Some(content(2.0)));
    assert_eq!(document.etag, second);
    assert!(document.update_time.is_some());
    gateway
        .try_delete(&scope, "visits", None)
        .await
        .expect("it is removed");
    gateway.crash().await;
    let gone = gateway.document(&scope, "visits").await;
    let facts = refused(gone, Code::NotFound, "STATE_UNKNOWN");
    assert_eq!(facts["document"], "visits");
    // Written anew it is another document.
    let third = gateway.puts(put(&scope, "visits", 2.0)).await;
    assert!(![first, second].contains(&third));
}

#[tokio::test]
async fn a_write_with_an_etag_happens_only_to_that_version() {
    let gateway = Gateway::start().await;
    let scope = bot_scope();
    let first = gateway.puts(put(&scope, "n", 1.0).if_absent()).await;
    let again = gateway.try_put(put(&scope, "n", 9.0).if_absent()).await;
    refused(again, Code::Aborted, "STATE_STALE");
    let second = gateway.puts(put(&scope, "n", 2.0).if_match(&first)).await;
    for etag in [first.as_str(), "no etag at all"] {
        let late = gateway.try_put(put(&scope, "n", 9.0).if_match(etag)).await;
        let facts = refused(late, Code::Aborted, "STATE_STALE");
        assert_eq!(facts["document"], "n");
        let late = gateway.try_delete(&scope, "n", Some(etag)).await;
        refused(late, Code::Aborted, "STATE_STALE");
    }
    assert_eq!(gateway.number(&scope, "n").await, Some(2.0));
    let third = gateway.puts(put(&scope, "n", 3.0)).await;
    let late = gateway.try_delete(&scope, "n", Some(&second)).await;
    refused(late, Code::Aborted, "STATE_STALE");
    gateway
        .try_delete(&scope, "n", Some(&third))
        .await
        .expect("it is removed");
    assert_eq!(gateway.number(&scope, "n").await, None);
    // It is not there any more, so that no etag matches, and one without is no mistake.
    let late = gateway.try_delete(&scope, "n", Some(&third)).await;
    refused(late, Code::Aborted, "STATE_STALE");
    gateway
        .try_delete(&scope, "n", None)
        .await
        .expect("no mistake");
    let counted = "turnwire_state_writes_total{outcome=\"stale\"}";
    assert_eq!(gateway.metric(counted).await, 7.0);
}

#[tokio::test]
async fn documents_of_other_scopes_names_and_bots_are_others() {
    let gateway = Gateway::start().await;
    for (number, scope) in all_scopes().iter().enumerate() {
        gateway.puts(put(scope, "n", number as f64)).await;
        gateway.puts(put(scope, "n2", 100.0)).await;
    }
    for (number, scope) in all_scopes().iter().enumerate() {
        assert_eq!(gateway.number(scope, "n").await, Some(number as f64));
    }
    let other = v1::GetStateRequest {
        bot_id: "other".to_owned(),
        scope: Some(bot_scope()),
        name: "n".to_owned(),
    };
    let other = within("a document", gateway.wire().state().get_state(other)).await;
    refused(other, Code::NotFound, "STATE_UNKNOWN");
    gateway
        .try_delete(&bot_scope(), "n", None)
        .await
        .expect("it is removed");
    let all = all_scopes();
    assert_eq!(gateway.number(&all[0], "n").await, None);
    assert_eq!(gateway.number(&all[1], "n").await, Some(1.0));
}

async fn list(
    gateway: &Gateway,
    scope: v1::StateScope,
    page_size: i32,
) -> Result<Vec<Vec<String>>, Status> {
    let mut pages = Vec::new();
    let mut request = v1::ListStateRequest {
        bot_id: "echo".to_owned(),
        scope: Some(scope),
        page_size,
        page_token: String::new(),
    };
    loop {
        let page = within("a page", gateway.wire().state().list_state(request.clone())).await?;
        let page = page.into_inner();
        pages.push(
            page.documents
                .into_iter()
                .map(|document| document.name)
                .collect(),
        );
        if page.next_page_token.is_empty() {
            return Ok(pages);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_scopes_documents_are_listed_by_name_in_pages() {
    let gateway = Gateway::setup()
        .config(|config| config.limits.page_bytes = 64 << 10)
        .start()
        .await;
    for scope in all_scopes() {
        for name in ["c", "a", "é", "b", "ab"] {
            gateway.puts(put(&scope, name, 1.0)).await;
        }
    }
    for scope in all_scopes() {
        let pages = list(&gateway, scope.clone(), 2).await.expect("pages");
        assert_eq!(pages, [vec!["a", "ab"], vec!["b", "c"], vec!["é"]]);
        let pages = list(&gateway, scope, 0).await.expect("pages");
        assert_eq!(pages, [["a", "ab", "b", "c", "é"]]);
    }
    let nobody = v1::StateScope::user("web", "nobody");
    assert_eq!(list(&gateway, nobody, 0).await.expect("a page"), [[""; 0]]);
    // A page has as many as fit, and one that does not fit by itself.
    let large = Struct {
        fields: [("text".to_owned(), "x".repeat(100 << 10).into())].into(),
    };
    let scope = v1::StateScope::user("web", "large");
    for name in ["1", "2"] {
        gateway
            .puts(v1::StateWrite::put(scope.clone(), name, large.clone()))
            .await;
    }
    let pages = list(&gateway, scope.clone(), 0).await.expect("pages");
    assert_eq!(pages, [["1"], ["2"]]);
    let negative = list(&gateway, scope.clone(), -1).await;
    refused(negative, Code::InvalidArgument, "REQUEST_INVALID");
    let forged = v1::ListStateRequest {
        bot_id: "echo".to_owned(),
        scope: Some(scope),
        page_token: "!".to_owned(),
        ..Default::default()
    };
    let forged = within("a page", gateway.wire().state().list_state(forged)).await;
    let facts = refused(forged, Code::InvalidArgument, "REQUEST_INVALID");
    assert_eq!(facts["field"], "page_token");
}

/// What makes a request wrong.
type Change = Box<dyn Fn(&mut v1::PutStateRequest)>;

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_its_field_and_nothing_is_written() {
    use v1::put_state_request::Condition::{IfAbsent, IfMatch};
    use v1::state_scope::Scope;
    let gateway = Gateway::start().await;
    let good = v1::PutStateRequest {
        bot_id: "echo".to_owned(),
        scope: Some(bot_scope()),
        name: "n".to_owned(),
        content: Some(content(1.0)),
        condition: None,
    };
    fn scope(scope: Scope) -> Option<v1::StateScope> {
        Some(v1::StateScope { scope: Some(scope) })
    }
    let wrong: [(&str, Change); 15] = [
        ("bot_id", Box::new(|put| put.bot_id.clear())),
        ("bot_id", Box::new(|put| put.bot_id = "a\0b".to_owned())),
        ("scope", Box::new(|put| put.scope = None)),
        (
            "scope",
            Box::new(|put| put.scope = Some(v1::StateScope::default())),
        ),
        (
            "scope.bot",
            Box::new(|put| put.scope = scope(Scope::Bot(false))),
        ),
        (
            "scope.user.channel_id",
            Box::new(|put| put.scope = Some(v1::StateScope::user("", "ann"))),
        ),
        (
            "scope.user.user_id",
            Box::new(|put| put.scope = Some(v1::StateScope::user("web", "x".repeat(513)))),
        ),
        (
            "scope.conversation",
            Box::new(|put| put.scope = Some(v1::StateScope::conversation(name("web", "")))),
        ),
        (
            "scope.conversation_user.conversation",
            Box::new(|put| put.scope = scope(Scope::ConversationUser(Default::default()))),
        ),
        ("name", Box::new(|put| put.name.clear())),
        ("name", Box::new(|put| put.name = "a\nb".to_owned())),
        ("name", Box::new(|put| put.name = "x".repeat(257))),
        ("content", Box::new(|put| put.content = None)),
        (
            "if_match",
            Box::new(|put| put.condition = Some(IfMatch(String::new()))),
        ),
        (
            "if_absent",
            Box::new(|put| put.condition = Some(IfAbsent(false))),
        ),
    ];
    for (field, change) in wrong {
        let mut request = good.clone();
        change(&mut request);
        let put = within("a write", gateway.wire().state().put_state(request)).await;
        let facts = refused(put, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(facts["field"], field);
    }
    let unknown = v1::PutStateRequest {
        bot_id: "nobody".to_owned(),
        ..good.clone()
    };
    let unknown = within("a write", gateway.wire().state().put_state(unknown)).await;
    refused(unknown, Code::NotFound, "BOT_UNKNOWN");
    let infinite = gateway.try_put(put(&bot_scope(), "n", f64::INFINITY)).await;
    refused(infinite, Code::InvalidArgument, "STATE_INVALID");
    let large = Struct {
        fields: [("text".to_owned(), "x".repeat(256 << 10).into())].into(),
    };
    let large = gateway
        .try_put(v1::StateWrite::put(bot_scope(), "n", large))
        .await;
    let facts = refused(large, Code::InvalidArgument, "STATE_TOO_LARGE");
    assert_eq!(facts["limit"], "state_document_bytes=262144");
    assert_eq!(
        list(&gateway, bot_scope(), 0).await.expect("a page"),
        [[""; 0]]
    );
    within("a write", gateway.wire().state().put_state(good))
        .await
        .expect("it is fine");
}

#[tokio::test]
async fn a_write_that_the_store_refuses_is_said_to_have_failed_and_a_full_disk_takes_deletions() {
    let gateway = Gateway::start().await;
    let scope = bot_scope();
    gateway.puts(put(&scope, "n", 1.0)).await;
    gateway.settle().await;
    gateway.memory().fail_next_commits(1);
    let failed = gateway.try_put(put(&scope, "n", 2.0)).await;
    refused(failed, Code::Unavailable, "STORE_FAILED");
    assert_eq!(gateway.number(&scope, "n").await, Some(1.0));
    gateway.puts(put(&scope, "n", 3.0)).await;
    gateway.memory().set_free_bytes(0);
    gateway.pass(crate::harness::seconds(2)).await;
    let full = gateway.try_put(put(&scope, "n", 4.0)).await;
    refused(full, Code::ResourceExhausted, "STORE_FULL");
    gateway
        .try_delete(&scope, "n", None)
        .await
        .expect("it is removed");
    assert_eq!(gateway.number(&scope, "n").await, None);
}

#[tokio::test]
async fn documents_outlive_a_restart_on_disk() {
    let mut gateway = Gateway::setup().on_disk().start().await;
    for scope in all_scopes() {
        gateway.puts(put(&scope, "n", 7.0)).await;
    }
    gateway.restart().await;
    for scope in all_scopes() {
        assert_eq!(gateway.number(&scope, "n").await, Some(7.0));
    }
    gateway
        .try_delete(&bot_scope(), "n", None)
        .await
        .expect("it is removed");
    gateway.crash().await;
    assert_eq!(gateway.number(&bot_scope(), "n").await, None);
}

async fn client(gateway: &Gateway) -> Client {
    let endpoint = format!("http://{}", gateway.address());
    let connected = Client::connect(endpoint, ClientOptions::default()).await;
    connected.expect("it listens")
}

#[tokio::test]
async fn the_client_reads_writes_and_lists() {
    let gateway = Gateway::start().await;
    let states = client(&gateway).await.states("echo");
    let scope = v1::StateScope::user("web", "ann");
    assert_eq!(
        states.get(scope.clone(), "n").await.expect("an answer"),
        None
    );
    let first = put(&scope, "n", 1.0).if_unchanged(None);
    let etag = states.write(first.clone()).await.expect("it is written");
    let late = states.write(first).await.expect_err("it is there already");
    assert!(late.is_state_conflict() && !late.is_retryable(), "{late}");
    let read = states.get(scope.clone(), "n").await.expect("an answer");
    assert_eq!(read.as_ref().map(|document| &document.etag), Some(&etag));
    let second = put(&scope, "n", 2.0).if_unchanged(read.as_ref());
    states.write(second).await.expect("it is written");
    for number in 0..250 {
        states
            .write(put(&scope, &format!("{number:03}"), 0.0))
            .await
            .expect("it is written");
    }
    let listed: Vec<_> = states.list(scope.clone()).collect().await;
    assert_eq!(listed.len(), 251);
    let last = listed.last().and_then(|last| last.as_ref().ok());
    assert_eq!(last.expect("a document").content, Some(content(2.0)));
    let delete = v1::StateWrite::delete(scope.clone(), "n");
    let stale = states.write(delete.clone().if_match(etag)).await;
    assert!(stale.expect_err("it was written since").is_state_conflict());
    assert_eq!(states.write(delete).await.expect("it is removed"), "");
    assert_eq!(gateway.number(&scope, "n").await, None);
}

#[tokio::test]
async fn a_handler_whose_state_was_stale_is_called_again_and_no_turn_is_counted_twice() {
    const CONVERSATIONS: usize = 6;
    const TURNS: usize = 5;
    let gateway = Gateway::start().await;
    let client = client(&gateway).await;
    let states = client.states("echo");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let bot = Bot::builder("echo")
        .concurrency(CONVERSATIONS)
        .build(&client);
    let running = tokio::spawn(async move {
        let handler = move |turn: Turn| {
            let states = states.clone();
            async move {
                let scope = turn.user_scope().ok_or(TurnError::poison("no user"))?;
                let read = states.get(scope.clone(), "turns").await?;
                let count = read.as_ref().map_or(0.0, number) + 1.0;
                let write = put(&scope, "turns", count).if_unchanged(read.as_ref());
                Ok::<_, TurnError>(Reply::from(count.to_string()).with_state(write))
            }
        };
        let stopped = async {
            let _ = stopped.await;
        };
        bot.run_until(stopped, handler).await
    });
    let mut watchers = Vec::new();
    for index in 0..CONVERSATIONS {
        let conversation = format!("c{index}");
        for _ in 0..TURNS {
            gateway.user(&conversation).says("count me").await;
        }
        watchers.push(gateway.watch(&conversation, 0).await);
    }
    let mut counts = Vec::new();
    for mut watcher in watchers {
        for _ in 0..2 * TURNS {
            let entry = watcher.entry().await;
            if entry.author() == v1::Author::Bot {
                let text = entry.activity.and_then(|activity| activity.text);
                counts.push(text.and_then(|text| text.parse::<usize>().ok()));
            }
        }
    }
    counts.sort();
    // Each count was said once: nobody answered from what was out of date.
    let all: Vec<_> = (1..=CONVERSATIONS * TURNS).map(Some).collect();
    assert_eq!(counts, all);
    drop(stop);
    let ended = within("the bot's end", running).await.expect("no panic");
    ended.expect("it was told to stop");
}

fn number(document: &v1::StateDocument) -> f64 {
    use prost_types::value::Kind::NumberValue;
    let content = document.content.as_ref();
    match content.and_then(|content| content.fields["n"].kind.clone()) {
        Some(NumberValue(number)) => number,
        other => panic!("no number but {other:?}"),
    }
}
