"""What is insecure, broken or unreachable here, and what to do about it: ``flywheel doctor``.

``look`` gathers what is so (servers, pools, files, packages, the machine, workload files) into
records, and knows Prefect, the network and the disk. What to think of a record is said by pure
functions, a file a topic: ``servers``, ``pools``, ``credentials``, ``files``, ``texts``,
``locks``, ``models``, ``approvers``, ``versions``, ``machine``, ``listening``. Each gives
``finding``s; ``examine`` asks all.
"""
