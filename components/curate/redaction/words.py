"""Lists of words that tell names and secrets from other words."""

_NOT_NAMES = """
a about account actually admin afraid african after again all alone already also always am
american an and any anybody anymore anything april are aren't as asap asian asking at august
australian available back be because been before being besides bob's booked booking both british
business but by called calling can can't canadian cannot card certain changing checking chinese
christian client confused crazy credit currently customer db debit december default demo did
different do does doing don't done down eager economy either else english european even ever
every excited february fine first flying for french friday from full german getting gift glad
going gold good guest had happy has have having he hello help her here hi him his hoping how
however i i'd i'll i'm i've if in indian interested into is isn't it it's italian item its
january japanese jewish july june just kind last late later like listed logged looking lost mad
made main make many march may maybe me member mexican mine monday more most mr mrs ms muslim my
name named names need needing never new no none nope not nothing november now october of off ok
okay old on one only or order other our out over pass passenger password perhaps platinum please
pretty private probably product quite ready really regular right root running same saturday
secure see september server she should shown silver since sir so some somebody someone something
sorry spanish spelled spelt still stop such sunday sure test than thank thanks that that's the
their them then there these they this those thursday to today tomorrow tonight too traveling
travelling trying tuesday unable undefined under unknown until up upset us user vegan vegetarian
very wanna want wanted wanting was wasn't we wednesday well were what what's whatever when where
which while who whose why will wish with wondering worried would writing yes yet you your yours
"""
NOT_NAMES = frozenset(_NOT_NAMES.split())
"""Words that follow "my name is" or "I'm" without being one."""

_MAY_BE_WORDS = """
al an art bell best bill bin bob's brown bush chance chase christian de dean den der do drew el
faith field fields frank gene grace grant guy hall hope hunter in iris jack joy king la lane le
lee long love mark mason may miles mills no olive page park parks penny pepper pierce price ray
rich rob rose ross royal ruby rusty sky so stone summer sunny to trip van violet von wade ward
waters west will winter wood woods young
"""
MAY_BE_WORDS = frozenset(_MAY_BE_WORDS.split())
"""Names that are words, too: alone they count only where nothing speaks against it."""

_ABOUT_A_PERSON = """
birthdate birthday dateofbirth dob email emailaddress firstname gender lastname mobile passport
passportnumber phone phonenumber ssn surname
"""
ABOUT_A_PERSON = frozenset(_ABOUT_A_PERSON.split())
"""Fields beside which a ``name`` is a person's, as ``fields.normal`` writes them."""

_PEOPLE = """
attendee attendees beneficiary cardholder contact contacts customer driver employee guest guests
participant participants passenger passengers patient patients people person recipient
recipients savedpassengers student students tenant traveler travelers
"""
PEOPLE = frozenset(_PEOPLE.split())
"""Fields that hold persons."""

_NOT_VALUES = """
bool boolean changeme empty example false here hidden incorrect integer invalid missing nil none
null number object optional passwd password redacted required secret str string text true
undefined unknown value wrong your_password yourpassword
"""
NOT_VALUES = frozenset(_NOT_VALUES.split())
"""What stands behind ``password:`` in schemas and prose."""
