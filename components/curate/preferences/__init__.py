"""Weigh people's feedback: what each kind says, whom to believe, and what is learned from it.

``store`` is the way in, from and to the warehouse; ``settings`` is what a workload file may say.
``signal`` is one feedback as it is staged, ``reading`` what it says about which answers, by the
rules in ``meaning``. ``defence`` holds back what is too much: ``bursts`` finds floods, ``brigades``
finds crowds, both by the tails in ``chance``, and ``caps`` bounds what one actor may weigh.
``resolve`` settles what people disagree about, with ``dawid_skene`` where there is enough to tell
judges apart. ``algebra`` puts it together: ``comparing`` and ``ratings`` give pairs, ``judging``
gives labels and regards, all of them in ``records``. ``writing`` makes rows of what may be learned
from, with ``texts`` redacted and ``length`` matched, and ``fates`` says what became of each signal.
``evidence`` reads it all again for a person.
"""
