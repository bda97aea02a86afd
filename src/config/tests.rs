use std::time::Duration;

use super::*;
use crate::auth::Role;
use crate::auth::secret::Digest;

const EXAMPLE: &str = include_str!("../../turnwire.example.toml");
/// A whole configuration, for tests to add their mistakes to.
const GOOD: &str = "\
[[bots]]
id = 'echo'
[[channels]]
id = 'web'
kind = 'grpc'
bot = 'echo'
";

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, "turnwire.toml", &|_| None, &Overrides::default())
}

/// The problems of a text, as they print.
fn problems(text: &str) -> Vec<String> {
    let error = parse(text).expect_err(text);
    error.problems().iter().map(Problem::to_string).collect()
}

fn the_problem(text: &str) -> String {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

fn digest(token: &str) -> String {
    Digest::of(token).to_string()
}

fn principal(name: &str, token: &str, roles: &str) -> String {
    let digest = digest(token);
    format!("[[principals]]\nname = '{name}'\ntoken_sha256 = '{digest}'\nroles = [{roles}]\n")
}

#[test]
fn an_empty_text_is_all_defaults() {
    let config = parse("").expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:7878");
    assert_eq!(config.data_dir, Path::new("turnwire-data"));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log, Log::default());
    assert!(config.bots.is_empty() && config.channels.is_empty() && config.principals.is_empty());
}

#[test]
fn the_example_is_valid_and_its_comments_show_the_defaults() {
    let as_is = parse(EXAMPLE).expect("valid");
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting,
            _ => line,
        })
        .collect();
    let all = parse(&uncommented.join("\n")).expect("valid");
    assert_eq!(all, as_is);
    assert_eq!(all.limits, Limits::default());

    let listed = uncommented.join("\n");
    let debug = format!("{:?}", all.limits);
    for field in debug
        .split([' ', '{'])
        .filter_map(|word| word.strip_suffix(':'))
    {
        assert!(
            listed.contains(&format!("\n{field} = ")),
            "{field} is not shown"
        );
    }
}

#[test]
fn the_development_configuration_is_valid_and_stays_on_this_machine() {
    let config = Config::dev(&Overrides::default()).expect("valid");
    let channel = &config.channels[0];
    assert_eq!((channel.id.as_str(), channel.bot.as_str()), ("dev", "echo"));
    assert_eq!(channel.outbound, Outbound::Watch);
    assert!(channel.capabilities.groups && channel.capabilities.typing);
    assert!(!channel.capabilities.update);

    let elsewhere = Overrides {
        listen: "0.0.0.0:1".parse().ok(),
        ..Overrides::default()
    };
    let error = Config::dev(&elsewhere).expect_err("open to others");
    assert!(
        error.to_string().starts_with("--listen: listen: "),
        "{error}"
    );
}

#[test]
fn everything_that_is_written_is_read() {
    let text = format!(
        "listen = '[::1]:0'\ndata_dir = '/data'\n\
         [log]\nformat = 'json'\nfilter = 'warn,turnwire=debug'\n\
         [limits]\nactivity_bytes = '2MiB'\npage = 1_0\ndelivery_deadline = '5s'\nlog_retention = '0s'\n\
         [[bots]]\nid = 'Echo.1_x-y'\nname = 'Echo'\ndelivery_deadline = '10m'\ndelivery_attempts = 1\n\
         [[channels]]\nid = 'web'\nkind = 'grpc'\nbot = 'Echo.1_x-y'\noutbound = 'watch'\n\
         capabilities = ['groups', 'update', 'delete', 'typing', 'streaming', 'create']\n\
         service_url = 'urn:adapter:web'\n\
         [[principals]]\nname = 'bot'\ntoken_sha256 = ['{}', '{}']\nroles = ['bot:Echo.1_x-y', 'channel:web', 'admin']\n",
        digest("old"),
        digest("new"),
    );
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.listen.to_string(), "[::1]:0");
    assert_eq!(config.data_dir, Path::new("/data"));
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(config.log.filter, "warn,turnwire=debug");
    assert_eq!(config.limits.activity_bytes, 2 << 20);
    assert_eq!(config.limits.page, 10);
    assert_eq!(config.limits.delivery_deadline, Duration::from_secs(5));
    assert_eq!(config.limits.log_retention, Duration::ZERO);
    assert_eq!(config.limits.ack_ids, Limits::default().ack_ids);
    assert_eq!(
        config.bots[0].delivery_deadline,
        Some(Duration::from_secs(600))
    );
    assert_eq!(config.bots[0].delivery_attempts, Some(1));
    let channel = &config.channels[0];
    assert_eq!(
        (channel.kind, channel.outbound),
        (Kind::Grpc, Outbound::Watch)
    );
    assert_eq!(channel.service_url.as_deref(), Some("urn:adapter:web"));
    assert!(channel.capabilities.create && channel.capabilities.update);
    let principal = &config.principals[0];
    assert_eq!(
        principal.token_digests,
        [Digest::of("old"), Digest::of("new")]
    );
    assert_eq!(
        principal.roles,
        [
            Role::Bot("Echo.1_x-y".into()),
            Role::Channel("web".into()),
            Role::Admin
        ]
    );
}

#[test]
fn a_problem_names_file_line_column_and_key() {
    let text = format!("{GOOD}[[channels]]\nid = 'other'\nkind = 'grpc'\nbot = 'ecko'\n");
    assert_eq!(
        the_problem(&text),
        "turnwire.toml:10:7: channels[1].bot: no bot `ecko` is registered; registered are `echo`"
    );
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_text() {
    let text = "lisen = 'x'\n[limits]\npage = 0\ndelivery_deadline = 60\n[[bots]]\nname = ''\n";
    assert_eq!(
        problems(text),
        [
            "turnwire.toml:1:1: lisen: no such key; did you mean `listen`?",
            "turnwire.toml:3:8: limits.page: is out of range: must be from 1 to 100000",
            "turnwire.toml:4:21: limits.delivery_deadline: must be a duration such as `500ms`, `60s`, `10m`, `1h` or `7d`, and is a number",
            "turnwire.toml:5:1: bots[0].id: is missing: add `id = ...`",
            "turnwire.toml:6:8: bots[0].name: must be 1 to 128 bytes without control characters",
        ]
    );
}

#[test]
fn unknown_keys_are_problems_everywhere() {
    for text in [
        "x = 1",
        "[limits]\nx = 1",
        "[log]\nx = 1",
        "[[bots]]\nid = 'a'\nx = 1",
        "[bots]\nid = 'a'",
        "[tables]",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    let message = the_problem("[log]\ncolour = 1");
    assert!(
        message.ends_with("no such key; known are `format`, `filter`"),
        "{message}"
    );
}

#[test]
fn grammar_is_reported_with_its_line() {
    let message = the_problem("listen = '127.0.0.1:1'\ndata_dir = \n");
    assert!(message.starts_with("turnwire.toml:2:"), "{message}");
    let message = the_problem("a = 1\na = 2\n");
    assert!(message.starts_with("turnwire.toml:2:1: "), "{message}");
}

#[test]
fn variables_are_replaced_and_places_are_those_of_the_file() {
    let env = |name: &str| (name == "BOT").then(|| "a-very-long-name-of-a-bot".to_owned());
    let parse = |text: &str| Config::parse(text, "t", &env, &Overrides::default());
    let config = parse("[[bots]]\nid = \"${BOT}\"").expect("valid");
    assert_eq!(config.bots[0].id.as_str(), "a-very-long-name-of-a-bot");

    let error = parse("bots = [{ id = \"${BOT}\", idd = 1 }]").expect_err("a typing error");
    assert_eq!(
        error.to_string(),
        "t:1:26: bots[0].idd: no such key; did you mean `id`?"
    );
    let error = parse("\n[[bots]]\nid = \"${TOB}\"").expect_err("unset");
    assert!(
        error.to_string().starts_with("t:3:7: `TOB` is not set"),
        "{error}"
    );
}

#[test]
fn out_of_range_values_are_refused_with_the_range() {
    for (setting, range) in [
        ("delivery_deadline = '4s'", "from `5s` to `10m`"),
        ("delivery_deadline = '11m'", "from `5s` to `10m`"),
        ("activity_bytes = '1GiB'", "from `1KiB` to `64MiB`"),
        ("activity_bytes = -1", "from `1KiB` to `64MiB`"),
        ("page = 99999999999999999999", "from 1 to 100000"),
    ] {
        let message = the_problem(&format!("[limits]\n{setting}"));
        assert!(message.contains(range), "{message}");
    }
    for setting in [
        "delivery_deadline = '5s'",
        "delivery_deadline = '10m'",
        "page = 100000",
    ] {
        assert!(parse(&format!("[limits]\n{setting}")).is_ok(), "{setting}");
    }
}

#[test]
fn limits_must_agree() {
    for (settings, fault) in [
        ("channel_data_bytes = '2MiB'", "channel_data_bytes"),
        ("activity_bytes = '8MiB'", "activity_bytes"),
        ("delivery_ceiling = '30s'", "delivery_ceiling"),
    ] {
        let message = the_problem(&format!("[limits]\n{settings}"));
        assert!(
            message.starts_with(&format!("turnwire.toml:2:{}", fault.len() + 4)),
            "{message}"
        );
    }
    assert!(parse("[limits]\nactivity_bytes = '8MiB'\npage_bytes = '8MiB'").is_ok());
    let deadline = "[limits]\ndelivery_ceiling = '1m'\n[[bots]]\nid = 'a'\ndelivery_deadline = ";
    assert!(parse(&format!("{deadline}'1m'")).is_ok());
    assert!(the_problem(&format!("{deadline}'2m'")).contains("`delivery_ceiling`"));
}

#[test]
fn ids_are_well_formed_and_unique() {
    for id in ["web", "a", "0_-", &"x".repeat(64)] {
        let text = GOOD.replace("'web'", &format!("'{id}'"));
        assert!(parse(&text).is_ok(), "{id}");
    }
    for id in ["", "Web", "a:b", "a.b", "ü", &"x".repeat(65)] {
        let text = GOOD.replace("'web'", &format!("'{id}'"));
        assert!(the_problem(&text).contains("is no channel id"), "{id}");
    }
    for id in ["", "a:b", "a b", "a/b", &"x".repeat(65)] {
        let message = the_problem(&format!("[[bots]]\nid = '{id}'"));
        assert!(message.contains("is no bot id"), "{id}");
    }
    for (twice, line) in [
        ("[[bots]]\nid = 'echo'\n", 2),
        ("[[channels]]\nid = 'web'\nkind = 'grpc'\nbot = 'echo'\n", 4),
    ] {
        let message = the_problem(&format!("{GOOD}{twice}"));
        assert!(message.contains(&format!("on line {line}")), "{message}");
    }
}

#[test]
fn unknown_kinds_ways_and_capabilities_name_the_known() {
    for (from, to, known) in [
        (
            "kind = 'grpc'",
            "kind = 'smoke'",
            "no `smoke`; known are `grpc`, `direct_line`",
        ),
        (
            "kind = 'grpc'",
            "kind = 'grpc'\noutbound = 'push'",
            "known are `queue`, `watch`",
        ),
        (
            "kind = 'grpc'",
            "kind = 'grpc'\ncapabilities = ['group']",
            "known are `groups`, `update`, `delete`, `typing`, `streaming`, `create`",
        ),
        (
            "kind = 'grpc'",
            "kind = 'grpc'\nservice_url = 'adapter'",
            "no absolute URL",
        ),
    ] {
        let message = the_problem(&GOOD.replace(from, to));
        assert!(message.contains(known), "{message}");
    }
}

#[test]
fn a_direct_line_channel_has_secrets_and_what_goes_with_them() {
    let secret = digest("s");
    let site = |more: &str| {
        GOOD.replace(
            "kind = 'grpc'",
            &format!("kind = 'direct_line'\nsecrets_sha256 = '{secret}'\n{more}"),
        )
    };
    let config = parse(&site("")).expect("valid");
    let channel = &config.channels[0];
    assert_eq!(channel.outbound, Outbound::Watch);
    let read = channel.direct_line.as_ref().expect("a site");
    assert_eq!(read.secrets, [Digest::of("s")]);
    assert_eq!(read.token_lifetime, Duration::from_secs(30 * 60));
    assert!(read.origins.is_empty() && !read.enhanced_authentication);

    let all = "trusted_origins = ['https://a.example', 'http://localhost:*']\n\
        token_lifetime = '1h'\nenhanced_authentication = true\n\
        public_url = 'https://chat.example.org/'";
    let config = parse(&site(all)).expect("valid");
    let read = config.channels[0].direct_line.as_ref().expect("a site");
    assert!(read.origins.allows("http://localhost:3000"));
    assert!(!read.origins.allows("https://b.example"));
    assert_eq!(read.public_url.as_deref(), Some("https://chat.example.org"));

    for (text, problem) in [
        (
            GOOD.replace("'grpc'", "'direct_line'"),
            "secrets_sha256: is missing",
        ),
        (
            GOOD.replace("'grpc'", "'grpc'\ntoken_lifetime = '1h'"),
            "only for channels of kind",
        ),
        (site("outbound = 'watch'"), "read by watching"),
        (
            site("capabilities = ['create']"),
            "`create` is not for this kind",
        ),
        (site("token_lifetime = '1s'"), "out of range"),
        (site("trusted_origins = ['a.example']"), "no origin"),
        (site("trusted_origins = []"), "must not be empty"),
        (site("enhanced_authentication = 'yes'"), "`true` or `false`"),
        (
            site("public_url = 'ftp://a.example'"),
            "no URL of this gateway",
        ),
        (
            site("public_url = 'http://a.example?x'"),
            "no URL of this gateway",
        ),
        (
            site("").replace(&secret, "dev-secret"),
            "64 hexadecimal digits",
        ),
    ] {
        let message = the_problem(&text);
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn one_mistake_is_one_problem() {
    // The bot's deadline is wrong; that the channel and the role name it is not.
    let text = GOOD.replace("'echo'\n[[", "'echo'\ndelivery_deadline = '1s'\n[[");
    let text = text + &principal("echo", "one", "'bot:echo'");
    assert!(the_problem(&text).contains("bots[0].delivery_deadline"));
    let text = GOOD.replace("kind = 'grpc'", "kind = 'smoke'");
    let text = text + &principal("web", "one", "'channel:web'");
    assert!(the_problem(&text).contains("channels[0].kind"));
}

#[test]
fn principals_have_their_own_names_and_tokens_and_roles_that_exist() {
    let good = format!(
        "{GOOD}{}{}",
        principal("one", "one", "'bot:echo', 'channel:web'"),
        principal("two", "two", "'backend'"),
    );
    assert_eq!(
        parse(&good).map(|config| config.principals.len()).ok(),
        Some(2)
    );
    for (from, to, message) in [
        (
            "'two'",
            "'one'".to_owned(),
            "another principal is called `one`, on line 8",
        ),
        (
            "'backend'",
            "'bot:other'".to_owned(),
            "no bot `other` is registered",
        ),
        (
            "'backend'",
            "'channel:other'".to_owned(),
            "no channel `other` is registered",
        ),
        ("'backend'", "'root'".to_owned(), "no role `root`"),
        ("'backend'", String::new(), "must not be empty"),
        ("'backend'", "'admin', 'admin'".to_owned(), "listed twice"),
        (&digest("two"), digest("one"), "the same token as on line 9"),
        (
            &format!("'{}'", digest("two")),
            "[]".to_owned(),
            "a list of 1 to 2",
        ),
    ] {
        let problem = the_problem(&good.replace(from, &to));
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn a_token_in_place_of_its_digest_is_refused_and_not_repeated() {
    let text = principal("one", "one", "'admin'").replace(&digest("one"), "tw_secret");
    let message = the_problem(&text);
    assert!(message.contains("64 hexadecimal digits"), "{message}");
    assert!(!message.contains("tw_secret"), "{message}");
}

#[test]
fn other_machines_reach_the_gateway_only_when_there_are_principals() {
    for address in [
        "127.0.0.1:1",
        "127.1.2.3:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert!(parse(&format!("listen = '{address}'")).is_ok(), "{address}");
    }
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        let text = format!("listen = '{address}'\n");
        let message = the_problem(&text);
        assert!(
            message.starts_with("turnwire.toml:1:10: listen: "),
            "{message}"
        );
        assert!(message.contains("[[principals]]"), "{message}");
        let principal = principal("one", "one", "'admin'");
        assert!(parse(&format!("{text}{principal}")).is_ok(), "{address}");
    }
    assert!(the_problem("listen = 'localhost'").contains("is no address and port"));
}

#[test]
fn flags_win_and_are_checked_with_the_rest() {
    let with = |listen: &str, text: &str| {
        let overrides = Overrides {
            listen: listen.parse().ok(),
            data_dir: Some("elsewhere".into()),
        };
        Config::parse(text, "t", &|_| None, &overrides)
    };
    let config = with("127.0.0.1:0", "listen = '0.0.0.0:1'\ndata_dir = 'x'").expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.data_dir, Path::new("elsewhere"));
    let error = with("0.0.0.0:1", "listen = '127.0.0.1:1'").expect_err("open to others");
    assert_eq!(error.problems()[0].place, Place::Flag("--listen"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("no/such.toml"), &Overrides::default());
    let error = error.expect_err("absent");
    assert!(error.to_string().contains("`no/such.toml`"), "{error}");
    assert!(error.problems().is_empty());
}

#[test]
fn a_file_is_read_with_the_environment_of_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("turnwire.toml");
    std::fs::write(&path, "data_dir = \"${PATH:-/}\"").expect("written");
    let config = Config::load(&path, &Overrides::default()).expect("valid");
    let expected = std::env::var("PATH").unwrap_or_else(|_| "/".to_owned());
    assert_eq!(config.data_dir, Path::new(&expected));
}

#[test]
fn a_channel_begins_with_one_bot_or_with_several_and_a_bot_says_whom_it_hears() {
    let bots = "[[bots]]\nid = 'a'\nhears = 'everyone'\n[[bots]]\nid = 'b'\n";
    let channel =
        |routed: &str| format!("{bots}[[channels]]\nid = 'web'\nkind = 'grpc'\n{routed}\n");
    let config = parse(&channel("bots = ['b', 'a']")).expect("valid");
    let web = &config.channels[0];
    assert_eq!((web.bot.as_str(), web.also[0].as_str()), ("b", "a"));
    assert_eq!(
        (config.bots[0].hears, config.bots[1].hears),
        (Hears::Everyone, Hears::Users)
    );
    let config = parse(&channel("bot = 'a'")).expect("valid");
    assert!(config.channels[0].also.is_empty());
    for (routed, problem) in [
        ("", "bot"),
        ("bots = []", "1 to 8"),
        ("bots = ['a', 'a']", "twice"),
        ("bots = ['a', 'c']", "no bot `c`"),
        ("bot = 'a'\nbots = ['b']", "said twice"),
        ("bots = 'a'", "a list"),
    ] {
        let text = the_problem(&channel(routed));
        assert!(text.contains(problem), "{routed}: {text}");
    }
    let few = format!(
        "{}[limits]\nconversation_bots = 1\n",
        channel("bots = ['a', 'b']")
    );
    assert!(the_problem(&few).contains("limit `conversation_bots`"));
    let deaf = "[[bots]]\nid = 'a'\nhears = 'nobody'\n";
    let text = the_problem(deaf);
    assert!(
        text.contains("`users`") && text.contains("`everyone`"),
        "{text}"
    );
}
