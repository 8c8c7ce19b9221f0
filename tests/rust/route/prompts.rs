//! Forty prompts with the tier that a person would give them.

pub const SEEN: [(&str, &str); 20] = [
    ("hi", "trivial"),
    ("Thanks a lot!", "trivial"),
    ("What is the capital of France?", "trivial"),
    ("Say hello in Spanish", "trivial"),
    ("Is a whale a fish?", "trivial"),
    (
        "Write a friendly two-sentence email that thanks a colleague for her help with the office move last week.",
        "simple",
    ),
    ("Summarise the plot of Romeo and Juliet in one short paragraph for a school newsletter.", "simple"),
    ("Translate into German: The meeting has been moved to Thursday because the room is taken.", "simple"),
    ("Give me five names for a bakery that sells mostly rye bread and cinnamon buns.", "simple"),
    ("Rewrite this sentence so that it sounds more polite: Send me the report today.", "simple"),
    ("Write a Python function that reverses a linked list.", "code"),
    ("Fix this:\n```\nfor (int i = 0; i <= n; i++) sum += a[i];\n```", "code"),
    ("Write a SQL query that finds the second highest salary in the table employees.", "code"),
    ("Why does useEffect run twice in my React component?", "code"),
    ("Convert this curl call to a requests.post call with the same headers in Python.", "code"),
    ("Prove that the square root of 2 is irrational.", "reasoning"),
    (
        "A train leaves at 14:10 at 80 km/h, another at 14:40 at 110 km/h on the same track. When does the second catch up?",
        "reasoning",
    ),
    (
        "Three people, each a knight or a knave, say: A: B lies. B: C lies. C: A and B lie. Who is what? Explain step by step.",
        "reasoning",
    ),
    (
        "Compare the tradeoffs of a value added tax and an income tax for a small open economy, and justify which you would choose.",
        "reasoning",
    ),
    ("What is the probability that two of 23 people share a birthday? Derive the formula.", "reasoning"),
];

pub const UNSEEN: [(&str, &str); 20] = [
    ("good morning", "trivial"),
    ("ok", "trivial"),
    ("Who wrote Hamlet?", "trivial"),
    ("What colour is the sky?", "trivial"),
    ("How many legs does a spider have?", "trivial"),
    ("Describe the taste of a ripe mango to a person who has never eaten one, in about fifty words.", "simple"),
    ("List the ingredients that I need for a simple tomato soup for four people.", "simple"),
    ("Extract the names of all persons from this text: Anna met Bernd and Carla at the station before noon.", "simple"),
    ("Explain what a mortgage is to a teenager.", "simple"),
    ("Suggest a subject line for an invitation to the summer party of a small firm.", "simple"),
    ("Implement a binary search in Rust and add unit tests.", "code"),
    ("What does `git rebase --onto` do, and when do I need it?", "code"),
    ("My unit test fails with KeyError: 'user_id' in get_profile(request). How can I fix it?", "code"),
    ("Write a regex that matches ISO dates.", "code"),
    ("Schreibe eine Funktion in JavaScript, die doppelte Werte aus einem Array entfernt.", "code"),
    ("Show that among any five integers there are three whose sum is divisible by three.", "reasoning"),
    (
        "A farmer has 17 sheep, all but 9 die, then he buys half as many as he has left. How many sheep are there now, and why?",
        "reasoning",
    ),
    ("Evaluate the integral of x * exp(-x^2) from 0 to infinity.", "reasoning"),
    (
        "Plan a schedule for four nurses so that each has two free days, never works two nights in a row, and at least two are there every day.",
        "reasoning",
    ),
    (
        "Our churn rose after a price change and a redesign in the same month. How would you find out which was the cause?",
        "reasoning",
    ),
];
