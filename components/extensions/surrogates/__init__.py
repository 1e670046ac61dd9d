"""Made-up values of the same form in place of people's: `conversation_surrogates` draws them."""
