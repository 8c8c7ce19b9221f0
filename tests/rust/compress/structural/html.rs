use farthing::compress::structural::compress;

use super::short;

/// As the body of a page.
fn page(body: &str) -> String {
    short(&format!("<!DOCTYPE html><html><body>{body}</body></html>"))
}

#[test]
fn a_page_is_read() {
    let text = "<!doctype html>\n<html><head><title>Prices &amp; terms</title><meta name=\"a\" content=\"b\"><style>p { color: red }</style>\
                <script>if (a < b) { go(\"</p>\") }</script></head>\n<body><!-- a > comment --><nav><a href=\"#top\">Top</a></nav>\n\
                <h1>Prices</h1><p>It costs <b>10</b>&nbsp;&euro;,\n   see <a href=\"https://example.com/?a=1&amp;b=2\">the  list</a>.</p>\
                <ul><li>One<ul><li>Deep</li></ul></li><li>Two</li></ul><ol start=3><li>Three<li>Four</ol>\
                <table><tr><th>Name</th><th>Age</th></tr><tr><td><p>Mia</p></td><td></td><td>7</td></tr></table>\
                <svg><path d=\"M0 0\"/></svg><img src=\"a.png\" alt=\"A cat\"></body></html>";
    let expected = "Prices & terms\nTop\n\n# Prices\n\nIt costs 10 €, see the list (https://example.com/?a=1&b=2).\n\n- One\n  - Deep\n- Two\n\n\
                    3. Three\n4. Four\n\nName | Age\nMia | | 7\n\n[image: A cat]";
    assert_eq!(short(text), expected);
}

#[test]
fn code_in_a_page_stays() {
    assert_eq!(
        page(
            "<p>Use</p><pre><code>\nif a &lt; b:\n\n\n  <span>x</span>  = 1\n</code></pre><p>or <code>a  &amp;&amp; b</code>.</p>"
        ),
        "Use\n\n```\nif a < b:\n\n\n  x  = 1\n```\n\nor `a  && b`."
    );
    assert_eq!(page("<pre>a ``` b</pre>"), "````\na ``` b\n````");
    assert_eq!(page("<code>a ` b</code>"), "`` a ` b ``");
}

#[test]
fn forms_show_their_values() {
    assert_eq!(
        page(
            "<label>Name <input value=\"Mia\"></label><input type=hidden value=x><input type=checkbox checked>Yes\
              <select><option>A</option><option selected>B</option></select>"
        ),
        "Name [Mia] [x] Yes\n- A\n- [x] B"
    );
}

#[test]
fn signs_keep_numbers_apart() {
    assert_eq!(page("10<sup>6</sup> H<sub>2</sub>O <del>5</del> 4"), "10^6 H_2O ~~5~~ 4");
    assert_eq!(page("<a href=\"mailto:a@b.c\">a@b.c</a> <a href=\"/about\">About</a>"), "a@b.c About (/about)");
    assert_eq!(page("<blockquote><p>So it is</p><p>he said</p></blockquote>Yes"), "> So it is\n\n> he said\n\nYes");
}

#[test]
fn numbers_and_cells_stand_where_the_page_shows_them() {
    assert!(page("<ol><li value=\"5\">five<li>six</ol>").contains("5. five\n6. six"));
    assert!(page("<ol reversed><li>c<li>b<li>a</ol>").contains("- c\n- b\n- a"));
    let table = page(
        "<table><tr><td rowspan=2>Q1<td>North<td>5<tr><td>South<td>7<tr><td colspan=2>Total<td>12<tr><td>Q2<td>All<td>1</table>",
    );
    assert!(table.contains("Q1 | North | 5\n | South | 7\nTotal | | 12\nQ2 | All | 1"), "{table}");
    let table = page(
        "<table><tr><th>G</th><th>N</th><th>P</th></tr><tr><td rowspan=2>g</td><td><ul><li>x</ul></td><td>1</td></tr>\
         <tr><td>y</td><td>2</td></tr><tr><td>h</td><td>z</td><td>3</td></tr></table>",
    );
    assert!(table.contains("G | N | P\ng |\n- x | 1\n | y | 2\nh | z | 3"), "{table}");
    let table = page(
        "<table><tr><td>A</td><td><ul><li>x</ul></td><td rowspan=2>10</td></tr><tr><td>B</td><td>z</td></tr></table>",
    );
    assert!(table.contains("A |\n- x | 10\nB | z"), "{table}");
    assert!(page("<p>10<math><msup><mn>2</mn><mn>6</mn></msup></math></p>").contains("2 6"));
    assert!(page("<p><progress value=30 max=100></progress></p>").contains("30"));
}

#[test]
fn a_piece_of_a_page_is_read() {
    let text = "<div class=\"a\"><p>One</p><p>Two <span>three</span></p></div><div><ul><li>x</li></ul></div>";
    assert_eq!(short(text), "One\n\nTwo three\n\n- x");
    for other in [
        "<div><p>One</p>",
        "<App><Header/><div className=\"a\"><p>{x}</p><p>b</p><span>c</span><p>d</p><p>e</p></div></App>",
        "<div><p>{% if a %}</p><p>b</p><p>c</p><p>d</p><p>e</p><p>f</p></div>",
        "Write <p>a</p><p>a</p><p>a</p><p>a</p><p>a</p><p>a</p><p>a</p><p>a</p>",
        "<example><input>a</input><output>b</output></example><example><input>a</input><output>b</output></example>",
    ] {
        assert_eq!(compress(other), None, "{other}");
    }
}

#[test]
fn what_breaks_off_hides_nothing() {
    for (body, words) in [
        ("one <!-- two", vec!["one", "two"]),
        ("one <script> two", vec!["one", "two"]),
        ("one <style>two <script>three", vec!["one", "two", "three"]),
        ("a < b and c > d", vec!["a < b and c > d"]),
        ("one <div title=\"x > y\">two", vec!["one\ntwo"]),
        ("one <a href=\"x>two", vec!["one", "two"]),
        ("one <b", vec!["one"]),
        ("one <kbd>←</kbd> <kbd>→</kbd> two", vec!["one ← → two"]),
        ("<a href=\"/x\">one</a>two", vec!["one (/x) two"]),
        ("one \0 two", vec!["one \0 two"]),
        ("one &bogus; &amp two", vec!["one &bogus;", "two"]),
        ("<table><tr><td>one<h2>two</h2><pre>three", vec!["one", "## two", "three"]),
        ("</p></ul></td></blockquote></pre>one", vec!["one"]),
    ] {
        let found = page(body);
        for word in words {
            assert!(found.contains(word), "{word:?} is not in {found:?} of {body:?}");
        }
    }
}

#[test]
fn a_page_that_shows_html_stays() {
    let shown = "&lt;p&gt;a&lt;/p&gt;".repeat(10);
    assert_eq!(compress(&format!("<html><p>{shown}</p></html>")), None);
}

#[test]
fn nothing_takes_long() {
    let many = 100_000;
    let bodies = [
        "<div>".repeat(many),
        "<ul><li>".repeat(many),
        "<blockquote>".repeat(many),
        "<".repeat(many),
        "<a href='".repeat(many),
        "<!--".repeat(many),
        "<script>".repeat(many),
        "<svg></".repeat(many),
        "&".repeat(many),
        "&#".repeat(many),
        "<pre>".repeat(many),
        "<code>`".repeat(many),
        "<td>".repeat(many),
        "<tr><td colspan=999 rowspan=999>".repeat(many / 8),
        format!("<script>{}", "</script ".repeat(many / 2)),
        "<a href=x>".repeat(many),
        format!("<img alt=\"{}\">", "x ".repeat(many)),
        format!("<img {}>", "a=b ".repeat(many)),
        format!("<p {}", "a=\" ".repeat(many)),
        "</".repeat(many),
        "</p".repeat(many),
    ];
    for body in bodies {
        // Something quadratic would take hours.
        page(&body);
    }
}
