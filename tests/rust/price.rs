//! Prices: the numbers here were read off genai-prices and litellm by hand, in USD per million tokens.

use std::collections::BTreeMap;

use farthing::ledger::{ModelPrice, Money, PriceTable, Usage};

const OPENAI: &str = "https://api.openai.com/v1/chat/completions";
const DEEPSEEK: &str = "https://api.deepseek.com/chat/completions";
const GOOGLE: &str = "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions";
/// 2026-11-24 12:00 UTC, a Tuesday.
const NOW: i64 = 1_795_521_600;

fn usage(prompt: u64, completion: u64) -> Usage {
    Usage { prompt, completion, ..Usage::default() }
}

fn tier(name: &str, prompt: u64, completion: u64) -> Usage {
    Usage { service_tier: Some(name.into()), ..usage(prompt, completion) }
}

fn charge(url: &str, model: &str, usage: &Usage) -> Option<String> {
    charge_at(url, model, usage, NOW)
}

fn charge_at(url: &str, model: &str, usage: &Usage, unix_seconds: i64) -> Option<String> {
    PriceTable::bundled().charge(url, model, usage, unix_seconds).map(|cost| cost.to_string())
}

/// The price of a million tokens in and a million out, each on its own, as small prompts have it.
fn per_million(url: &str, model: &str) -> (Option<String>, Option<String>) {
    let price = |usage: Usage| {
        let cost = PriceTable::bundled().charge(url, model, &usage, NOW)?;
        Some(Money::from_pico(cost.pico() * 1000).to_string())
    };
    (price(usage(1000, 0)), price(usage(0, 1000)))
}

fn dollars(input: &str, output: &str) -> (Option<String>, Option<String>) {
    (Some(input.to_owned()), Some(output.to_owned()))
}

fn own(model: &str, price: ModelPrice) -> PriceTable {
    PriceTable::bundled().with_overrides(BTreeMap::from([(model.to_owned(), price)]))
}

#[test]
fn the_list_is_read_and_dated() {
    assert_eq!(PriceTable::date(), "2026-11-23");
}

#[test]
fn spot_prices() {
    let groq = "https://api.groq.com/openai/v1/chat/completions";
    let mistral = "https://api.mistral.ai/v1/chat/completions";
    let rows = [
        (OPENAI, "gpt-4o-mini", "0.15", "0.6"),
        (OPENAI, "gpt-4o-mini-2024-07-18", "0.15", "0.6"),
        (OPENAI, "gpt-4o", "2.5", "10"),
        (OPENAI, "gpt-4o-2024-08-06", "2.5", "10"),
        (OPENAI, "gpt-4o-2024-05-13", "5", "15"),
        (OPENAI, "gpt-4.1", "2", "8"),
        (OPENAI, "gpt-5", "1.25", "10"),
        (OPENAI, "gpt-5-2025-08-07", "1.25", "10"),
        (OPENAI, "gpt-5-mini", "0.25", "2"),
        (OPENAI, "gpt-5-nano", "0.05", "0.4"),
        (OPENAI, "gpt-5.2", "1.75", "14"),
        (OPENAI, "gpt-6-sol", "2", "10"),
        (OPENAI, "o3", "2", "8"),
        (DEEPSEEK, "deepseek-flash", "0.15", "0.6"),
        (DEEPSEEK, "deepseek-v4-pro", "0.66", "1.98"),
        (mistral, "codestral-2508", "0.3", "0.9"),
        (mistral, "mistral-medium-latest", "1.5", "7.5"),
        (groq, "llama-3.3-70b-versatile", "0.59", "0.79"),
        (groq, "openai/gpt-oss-120b", "0.15", "0.6"),
        (GOOGLE, "gemini-2.5-pro", "1.25", "10"),
        (GOOGLE, "models/gemini-2.5-pro", "1.25", "10"),
        ("https://api.anthropic.com/v1/chat/completions", "claude-haiku-4-5-20251001", "1", "5"),
        ("https://api.x.ai/v1/chat/completions", "grok-4.7", "2", "6"),
        ("https://api.z.ai/api/paas/v4/chat/completions", "glm-4.6", "0.6", "2.2"),
        ("https://openrouter.ai/api/v1/chat/completions", "anthropic/claude-opus-4.5", "5", "25"),
        ("https://api.fireworks.ai/inference/v1/chat/completions", "accounts/fireworks/models/kimi-k2p6", "0.95", "4"),
        ("https://mine.openai.azure.com/openai/deployments/d/chat/completions", "gpt-4o", "2.5", "10"),
        ("https://mine.services.ai.azure.com/openai/v1/chat/completions", "gpt-4.1", "2", "8"),
    ];
    for (url, model, input, output) in rows {
        assert_eq!(per_million(url, model), dollars(input, output), "{model} at {url}");
    }
}

#[test]
fn an_embedding_has_no_answer_to_pay() {
    let url = "https://api.openai.com/v1/embeddings";
    assert_eq!(charge(url, "text-embedding-3-small", &usage(1_000_000, 0)).as_deref(), Some("0.02"));
    assert_eq!(charge(url, "text-embedding-3-small", &usage(1, 0)).as_deref(), Some("0.00000002"));
    assert_eq!(charge(url, "text-embedding-3-small", &usage(1, 1)), None);
}

#[test]
fn upper_case_is_the_same_id() {
    let url = "https://api.together.xyz/v1/chat/completions";
    assert_eq!(per_million(url, "meta-llama/Llama-3.3-70B-Instruct-Turbo"), dollars("0.88", "0.88"));
}

#[test]
fn a_fine_tuned_model_has_the_price_of_its_base() {
    let model = "ft:gpt-4o-mini-2024-07-18:my-org:name:abc123";
    assert_eq!(per_million(OPENAI, model), dollars("0.3", "1.2"));
    assert_eq!(charge(OPENAI, "ft:gpt-9:my-org::abc123", &usage(1, 1)), None);
}

#[test]
fn cached_tokens() {
    // 600 * 0.15 + 400 * 0.075 + 100 * 0.6
    let read = Usage { cached: 400, ..usage(1000, 100) };
    assert_eq!(charge(OPENAI, "gpt-4o-mini", &read).as_deref(), Some("0.00018"));
    // No price for cached tokens is listed.
    assert_eq!(charge(OPENAI, "gpt-4o-2024-05-13", &read), None);
    assert_eq!(charge(OPENAI, "gpt-4o-2024-05-13", &usage(1000, 100)).as_deref(), Some("0.0065"));
    // Parts that are more than the whole.
    assert_eq!(charge(OPENAI, "gpt-4o-mini", &Usage { cached: 1001, ..usage(1000, 100) }), None);
}

#[test]
fn cache_writes() {
    // 500 * 2 + 300 * 0.2 + 200 * 2.5
    let both = Usage { cached: 300, cache_write: 200, ..usage(1000, 0) };
    assert_eq!(charge(OPENAI, "gpt-6-sol", &both).as_deref(), Some("0.00156"));
    // No price for it is listed: input as any other.
    let written = Usage { cache_write: 200, ..usage(1000, 0) };
    assert_eq!(charge(OPENAI, "gpt-4o-mini", &written), charge(OPENAI, "gpt-4o-mini", &usage(1000, 0)));
}

#[test]
fn audio_tokens() {
    // 100 * 2.5 + 900 * 32 + 50 * 10 + 950 * 64
    let spoken = Usage { audio_prompt: 900, audio_completion: 950, ..usage(1000, 1000) };
    assert_eq!(charge(OPENAI, "gpt-audio", &spoken).as_deref(), Some("0.09035"));
    assert_eq!(charge(OPENAI, "gpt-4o", &spoken), None);
    assert_eq!(charge(OPENAI, "gpt-4o", &Usage { audio_completion: 1, ..usage(10, 10) }), None);
}

#[test]
fn service_tiers() {
    let base = charge(OPENAI, "gpt-5", &usage(1000, 1000));
    assert_eq!(base.as_deref(), Some("0.01125"));
    for name in ["default", "standard", "auto"] {
        assert_eq!(charge(OPENAI, "gpt-5", &tier(name, 1000, 1000)), base);
    }
    assert_eq!(charge(OPENAI, "gpt-5", &tier("flex", 1000, 1000)).as_deref(), Some("0.005625"));
    assert_eq!(charge(OPENAI, "gpt-5", &tier("batch", 1000, 1000)).as_deref(), Some("0.005625"));
    assert_eq!(charge(OPENAI, "gpt-5", &tier("priority", 1000, 1000)).as_deref(), Some("0.0225"));
    // 1000 at 0.0625
    let read = Usage { cached: 1000, ..tier("flex", 1000, 0) };
    assert_eq!(charge(OPENAI, "gpt-5", &read).as_deref(), Some("0.0000625"));
    // No such tier, no such price, no cached price in it.
    assert_eq!(charge(OPENAI, "gpt-5", &tier("scale", 1000, 1000)), None);
    assert_eq!(charge(OPENAI, "gpt-4o", &tier("flex", 1000, 1000)), None);
    assert_eq!(charge(OPENAI, "gpt-5-nano", &tier("priority", 1000, 1000)), None);
    assert_eq!(charge(OPENAI, "gpt-4o", &Usage { cached: 10, ..tier("batch", 1000, 1000) }), None);
}

#[test]
fn past_a_threshold_the_whole_request_costs_more() {
    // 5 and 30, or 10 and 45 above 272,000.
    assert_eq!(charge(OPENAI, "gpt-5.5", &usage(272_000, 1000)).as_deref(), Some("1.39"));
    assert_eq!(charge(OPENAI, "gpt-5.5", &usage(272_001, 1000)).as_deref(), Some("2.76501"));
    let read = Usage { cached: 272_001, ..usage(272_001, 0) };
    assert_eq!(charge(OPENAI, "gpt-5.5", &read).as_deref(), Some("0.272001"));
    assert_eq!(charge(OPENAI, "gpt-5.5", &tier("flex", 300_000, 1000)).as_deref(), Some("1.5225"));
    // Nothing is listed for long prompts at priority.
    assert_eq!(charge(OPENAI, "gpt-5.5", &tier("priority", 1000, 0)).as_deref(), Some("0.0125"));
    assert_eq!(charge(OPENAI, "gpt-5.5", &tier("priority", 300_000, 0)), None);
    // From 200,000 on, for this one.
    let xai = "https://api.x.ai/v1/chat/completions";
    assert_eq!(charge(xai, "grok-4.7", &usage(199_999, 0)).as_deref(), Some("0.399998"));
    assert_eq!(charge(xai, "grok-4.7", &usage(200_000, 0)).as_deref(), Some("0.8"));
    // Two thresholds: 0.03, 0.1 above 32,000, 0.2 above 256,000.
    let openrouter = "https://openrouter.ai/api/v1/chat/completions";
    for (prompt, cost) in [(32_000, "0.00096"), (256_000, "0.0256"), (300_000, "0.06")] {
        assert_eq!(charge(openrouter, "qwen/qwen3.7-flash", &usage(prompt, 0)).as_deref(), Some(cost));
    }
}

#[test]
fn prices_change_on_a_day() {
    let million = usage(100_000, 0);
    // 1 until 2026-07-29, 0.2 from then on.
    assert_eq!(charge_at(OPENAI, "gpt-5.6-luna", &million, 1_785_369_599).as_deref(), Some("0.1"));
    assert_eq!(charge_at(OPENAI, "gpt-5.6-luna", &million, 1_785_369_600).as_deref(), Some("0.02"));
    // 2 until 2026-11-30, 4 from then on.
    assert_eq!(charge_at(GOOGLE, "gemini-4-argon", &million, 1_796_083_199).as_deref(), Some("0.2"));
    assert_eq!(charge_at(GOOGLE, "gemini-4-argon", &million, 1_796_083_200).as_deref(), Some("0.4"));
    // The other list does not say what a tier costs after it.
    let flex = tier("flex", 100_000, 0);
    assert_eq!(charge_at(GOOGLE, "gemini-4-argon", &flex, 1_796_083_199).as_deref(), Some("0.1"));
    assert_eq!(charge_at(GOOGLE, "gemini-4-argon", &flex, 1_796_083_200), None);
}

#[test]
fn prices_change_with_the_hour() {
    let million = usage(1_000_000, 0);
    // 2026-11-25 is a Wednesday: peak from 01:00 to 04:00 and from 06:00 to 10:00. On Saturday there is none.
    let hours = [
        (1_795_568_399, "0.15"), // 00:59:59
        (1_795_568_400, "0.3"),
        (1_795_579_199, "0.3"),
        (1_795_579_200, "0.15"), // 04:00
        (1_795_600_799, "0.3"),  // 09:59:59
        (1_795_600_800, "0.15"),
        (1_795_831_200, "0.15"), // Saturday, 02:00
        (1_795_831_200 + 86_400, "0.15"),
        (1_795_831_200 + 2 * 86_400, "0.3"),
    ];
    for (unix_seconds, cost) in hours {
        assert_eq!(charge_at(DEEPSEEK, "deepseek-flash", &million, unix_seconds).as_deref(), Some(cost));
    }
}

#[test]
fn unknown_models_have_no_price() {
    for model in ["", "gpt-4o-mini-2099-01-01", "gpt-4o-mini ", "gpt", "openai/gpt-4o-mini", "my-deployment"] {
        assert_eq!(charge(OPENAI, model, &usage(1, 1)), None, "{model}");
    }
    // Known elsewhere.
    assert_eq!(charge(DEEPSEEK, "gpt-4o-mini", &usage(1, 1)), None);
    // Both lists have it, and both are out of date.
    assert_eq!(charge(DEEPSEEK, "deepseek-chat", &usage(1, 1)), None);
    // Billed by the search as well; free; an alias without a date.
    assert_eq!(charge(OPENAI, "gpt-4o-search-preview", &usage(1, 1)), None);
    assert_eq!(charge("https://api.perplexity.ai/chat/completions", "sonar-pro", &usage(1, 1)), None);
    assert_eq!(charge("https://api.z.ai/api/paas/v4/chat/completions", "glm-4.5-flash", &usage(1, 1)), None);
    assert_eq!(charge("https://api.mistral.ai/v1/chat/completions", "mistral-large-latest", &usage(1, 1)), None);
}

#[test]
fn only_the_providers_own_host_has_its_prices() {
    let good = [
        "https://api.openai.com/v1",
        "https://API.OpenAI.com/v1/chat/completions?x=1",
        "https://api.openai.com:443/v1",
        "https://user:secret@api.openai.com/v1",
    ];
    for url in good {
        assert!(charge(url, "gpt-4o", &usage(1, 1)).is_some(), "{url}");
    }
    let bad = [
        "",
        "api.openai.com",
        "/v1/chat/completions",
        "http://127.0.0.1:8080/v1",
        "http://[::1]:8080/v1",
        "https://eu.api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evil-api.openai.com/v1",
        "https://xapi.openai.com/v1",
        "https://openai.com/v1",
        "https://evil.example/api.openai.com/v1",
        "https://evil.example/?host=api.openai.com",
        "https://evil.example#@api.openai.com/",
        "https://api.openai.com@evil.example/v1",
        "https://api.openai.com:secret@evil.example/v1",
        r"https://evil.example\@api.openai.com/v1",
        r"https://api.openai.com\@evil.example/v1",
        "https://openai.azure.com/openai",
        "https://.openai.azure.com/openai",
        "https://a.b.openai.azure.com/openai",
        "https://mine.openai.azure.com.evil.example/openai",
        "https://evilopenai.azure.com/openai",
    ];
    for url in bad {
        assert_eq!(charge(url, "gpt-4o", &usage(1, 1)), None, "{url}");
    }
}

#[test]
fn an_own_price_goes_first_and_everywhere() {
    let price = ModelPrice::parse("1", "2.5", Some("0.1"), Some("1.25")).unwrap();
    let table = own("gpt-4o", price);
    let parts = Usage { cached: 100, cache_write: 200, ..usage(1000, 10) };
    // 700 * 1 + 100 * 0.1 + 200 * 1.25 + 10 * 2.5
    let cost = Some(Money::from_pico(985_000_000));
    for url in [OPENAI, "http://127.0.0.1:8080/v1", "not a url"] {
        assert_eq!(table.charge(url, "gpt-4o", &parts, NOW), cost, "{url}");
    }
    assert_eq!(table.charge_own("gpt-4o", &parts), cost);
    // Whatever the tier.
    let priority = Usage { service_tier: Some("priority".into()), ..parts.clone() };
    assert_eq!(table.charge(OPENAI, "gpt-4o", &priority, NOW), cost);
    // The rest is as it was.
    assert_eq!(table.charge_own("gpt-4o-mini", &parts), None);
    let bundled = PriceTable::bundled();
    assert_eq!(table.charge(OPENAI, "gpt-5", &parts, NOW), bundled.charge(OPENAI, "gpt-5", &parts, NOW));
    assert_eq!(bundled.charge_own("gpt-4o", &parts), None);
    // It says nothing of speech.
    assert_eq!(table.charge_own("gpt-4o", &Usage { audio_prompt: 1, ..usage(10, 10) }), None);
}

#[test]
fn an_own_price_without_cached_prices_takes_those_of_input() {
    let table = own("mine", ModelPrice::parse("3", "15", None, None).unwrap());
    let parts = Usage { cached: 400, cache_write: 300, ..usage(1000, 0) };
    assert_eq!(table.charge_own("mine", &parts), Some(Money::from_pico(3_000_000_000)));
    let free = own("mine", ModelPrice::parse("0", "0", None, None).unwrap());
    assert_eq!(free.charge_own("mine", &parts), Some(Money::ZERO));
}

#[test]
fn own_prices_are_exact() {
    let one = |text: &str| {
        let table = own("mine", ModelPrice::parse(text, "0", None, None).unwrap());
        table.charge_own("mine", &usage(1, 0)).unwrap().pico()
    };
    for (text, units) in [
        ("0.000001", 1),
        ("0.1", 100_000),
        ("0.30", 300_000),
        ("2.500000000", 2_500_000),
        ("007", 7_000_000),
        ("999999.999999", 999_999_999_999),
        ("1000000", 1_000_000_000_000),
        ("1000000.0", 1_000_000_000_000),
    ] {
        assert_eq!(one(text), units, "{text}");
    }
    // The most that can be asked for is a number still.
    let table = own("mine", ModelPrice::parse("1000000", "1000000", None, None).unwrap());
    assert!(table.charge_own("mine", &usage(u64::MAX, u64::MAX)).unwrap() > Money::ZERO);
}

#[test]
fn bad_own_prices_are_refused() {
    let bad = [
        "",
        " ",
        ".",
        "1.",
        ".5",
        "-1",
        "+1",
        "-0",
        "1e3",
        "1E-2",
        "NaN",
        "inf",
        "0x1",
        "1_000",
        "1,5",
        " 1",
        "1 ",
        "1.2.3",
        "0.0000001",
        "1.1234567",
        "1000000.000001",
        "1000001",
        "99999999999999999999999999",
        "١",
        "$1",
    ];
    for text in bad {
        for error in [
            ModelPrice::parse(text, "1", None, None).unwrap_err(),
            ModelPrice::parse("1", text, None, None).unwrap_err(),
            ModelPrice::parse("1", "1", Some(text), None).unwrap_err(),
            ModelPrice::parse("1", "1", None, Some(text)).unwrap_err(),
        ] {
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
    let error = ModelPrice::parse("1", "1", Some("x"), None).unwrap_err();
    assert!(error.starts_with("cached_input: "), "{error}");
}
