%% Load the modules of RabbitMQ and of what it is built on, each from the place that its application names. Evaluated before
%% RabbitMQ boots (`erl -run file eval`).
%%
%% RabbitMQ asks every one of these modules for its attributes as it boots. Left to the code server, each is searched for in
%% up to a hundred directories: some 50,000 failed opens, and twice the processor time for the whole start. The helper that
%% RabbitMQ starts to look for epmd reads this file too, and has no use for them: it alone is given a name (`-sname`).
Visit = fun Visit([], _) -> ok;
            Visit([App | Rest], Seen) ->
                case lists:member(App, Seen) orelse code:where_is_file(atom_to_list(App) ++ ".app") of
                    true -> Visit(Rest, Seen);
                    non_existing -> Visit(Rest, Seen);
                    File ->
                        {ok, [{application, App, Keys}]} = file:consult(File),
                        [code:load_abs(filename:join(filename:dirname(File), Module))
                         || Module <- proplists:get_value(modules, Keys, []), not erlang:module_loaded(Module)],
                        Visit(proplists:get_value(applications, Keys, []) ++ Rest, [App | Seen])
                end
        end,
[Visit([rabbit], [kernel, stdlib]) || init:get_argument(sname) =:= error].
